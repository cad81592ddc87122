"""The coefficients of a step as one matrix: a row for each group of leaves with equal strengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ..._core.errors import bad, describe
from ..._core.steps import COEFFICIENTS
from ..._core.strengths import as_float
from ..types import Scalar

Columns: TypeAlias = dict[str, Any]
"""Coefficients by name: a scalar for all groups, or one for each group, (groups,). Those that are missing are 0."""


def matrix(columns: Mapping[str, Any], groups: int, dtype: Any) -> jax.Array:
    """(groups, len(COEFFICIENTS)), as a launch takes them."""
    defaults = {"scale": 1.0, "shrink": 1.0}
    values = [columns.get(name, defaults.get(name, 0.0)) for name in COEFFICIENTS]
    return jnp.stack([jnp.broadcast_to(jnp.asarray(v, dtype), (groups,)) for v in values], axis=1)


def penalty_columns(penalty: str, length: Any, l1: Sequence[jax.Array], l2: Sequence[jax.Array]) -> Columns:
    """The penalty's part; NaN where a strength or the length is negative or NaN, for there is no such step."""
    first, second = jnp.stack(l1), jnp.stack(l2)
    good = jnp.where((first >= 0) & (second >= 0) & (length >= 0), 1, jnp.nan).astype(first.dtype)
    if penalty == "grad":
        return {"l1": good * first, "l2": good * 2 * second}
    length = good * length
    return {"threshold": length * first, "pull": 2 * length * second, "metric": float(penalty == "prox")}


def check_beta(argument: str, value: Scalar) -> Scalar:
    """A rate of decay in [0, 1): a float, or a 0-d array, which is not read on the host."""
    if isinstance(value, jax.Array) and value.ndim == 0:
        return value
    number = as_float(value)
    if number is None or not 0 <= number < 1:
        raise bad(ValueError, argument, f"{describe(value)} is no rate of decay", "Use a float in [0, 1)")
    return number


def bias(beta: Scalar, count: jax.Array, dtype: Any) -> jax.Array:
    """1 - beta^count, without the loss of digits that 1 - 0.999 has in float32."""
    log = jnp.log(beta) if isinstance(beta, jax.Array) else math.log(beta) if beta else -math.inf
    return -jnp.expm1(count.astype(dtype) * jnp.asarray(log, dtype))
