"""Strengths and steps as device scalars."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core.operations import Op, Role


def scalar(v: Any, dtype: Any) -> jax.Array:
    """A static strength (a float) or a 0-d array in the dtype. An array is not read on the host."""
    if isinstance(v, float):
        return _made_once(v, dtype, jax.sharding.get_abstract_mesh(), jax.config.jax_default_device)  # type: ignore[attr-defined]
    return jnp.asarray(v).astype(dtype)


@functools.lru_cache(maxsize=4096)
def _made_once(value: float, dtype: Any, mesh: Any, device: Any) -> jax.Array:
    """A static strength as a device scalar, made once: converting 2,000 floats at each call costs more than
    the launch. Under `jax.set_mesh` an array belongs to the mesh, so each mesh has its own.

    `device_put` is an explicit transfer, which `jax.transfer_guard("disallow")` allows.
    """
    with jax.ensure_compile_time_eval():
        return jax.device_put(np.asarray(value, dtype))


def coefficients(op: Op, l1: Any, l2: Any, step: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(a, b) of the operation. For one that writes the leaf itself b is NaN where the step or a strength is negative or
    NaN: there is no such step, and the result is NaN rather than a number that looks right."""
    l1, l2, step = (scalar(v, dtype) for v in (l1, l2, step))
    a, b = op.coefficients(l1, l2, step)
    if op.writes is Role.X:
        b = jnp.where((step >= 0) & (l1 >= 0) & (l2 >= 0), b, jnp.nan)
    return a, b
