"""What the forged calls are made of: operands and results of some size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fused_penalty._core.dtypes import DTYPES
from fused_penalty._core.plan import BOTH, Plan

N = 1 << 22  # elements of a leaf: enough that a read past a shorter array ends the process
F32 = jnp.float32
Case = tuple[str, Callable[[], Any], str]  # what is wrong, the call, and what the refusal must name


def table(*sizes: int, dtype: str = "float32", slots: Sequence[int] | None = None) -> np.ndarray:
    n = len(sizes)
    slots = tuple(range(n)) if slots is None else tuple(slots)
    return Plan(sizes, (DTYPES.index(dtype),) * n, slots, (1,) * n, (BOTH,) * n).table


def array(n: int = N, dtype: Any = F32) -> jax.Array:
    return jnp.ones(n, dtype)


def result(*shape: int, dtype: Any = F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
