"""Trees of updates: an entry may be None, and then params may hold anything there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..jax.types import PyTree


def given(params: PyTree | None) -> PyTree:
    """params, without which no penalty can be computed; the error is optax's own."""
    if params is None:
        raise ValueError(
            "You are using a transformation that requires the current value of parameters, but you are not passing "
            "`params` when calling `update`."
        )
    return params


def map_updates(
    f: Callable[..., Any], updates: PyTree, *trees: PyTree, absent: Callable[..., Any] = lambda *trees: None
) -> PyTree:
    """Map f over the updates; where one is None, the other trees may hold any subtree, which `absent` maps."""

    def each(g: Any, *x: Any) -> Any:
        return absent(*x) if g is None else f(g, *x)

    return jax.tree.map(each, updates, *trees, is_leaf=lambda g: g is None)


def updated(updates: PyTree, params: PyTree) -> list[bool]:
    """Which leaves of params get an update."""
    flags = map_updates(lambda g, p: True, updates, params, absent=lambda p: jax.tree.map(lambda _: False, p))
    return jax.tree.leaves(flags)


def joined(*values: Any) -> Any:
    """The dtype that JAX's arithmetic gives by default, also under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)
