"""What JAX 0.8 and 0.9 spell otherwise than JAX 0.10 does."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
from jax.sharding import NamedSharding

reshard: Any = getattr(jax, "reshard", None) or jax.sharding.reshard


def varying(x: jax.Array) -> frozenset[str]:
    """The manual axes over which a value differs (empty under check_vma=False)."""
    aval: Any = jax.typeof(x)
    return frozenset(aval.mat.varying if hasattr(aval, "mat") else aval.vma)


def as_varying(x: Any, axes: Collection[str]) -> jax.Array:
    """The value, marked as one that differs over these axes, too."""
    lax: Any = jax.lax
    names = tuple(sorted(axes))
    marked: jax.Array = lax.pcast(x, names, to="varying") if hasattr(lax, "pcast") else lax.pvary(x, names)
    return marked


def varying_as(shape: jax.ShapeDtypeStruct, like: jax.Array, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """The type of a value that differs over the axes over which `like` does."""
    aval: Any = jax.typeof(like)
    if hasattr(aval, "mat"):
        return shape.update(manual_axis_type=aval.mat, sharding=sharding)
    return shape.update(vma=aval.vma, sharding=sharding)
