"""The mathematics of one element in jnp: the twin of kernels/elastic_net.h.

Elementwise and differentiable, so that XLA fuses it into whatever uses it; the calculus differentiates these lines.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._core.operations import Op
from .._core.plan import L1, L2


def wide(x: jax.Array) -> jax.Array:
    """x in float32 or wider, in which an element is computed."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def displacement(x: jax.Array, anchor: jax.Array | None) -> jax.Array:
    """x - anchor, in float32 or wider."""
    return wide(x) if anchor is None else wide(x) - wide(anchor)


def subgradient(d: jax.Array, a: Any, b: Any, terms: int) -> jax.Array:
    """a·sign(d) + b·d, without a term that is statically absent (0·inf would be NaN)."""
    # jnp.sign has derivative 0 everywhere; a `where` that returns d at 0 would have derivative 1 there.
    gradient = jnp.zeros_like(d)
    if terms & L1:
        gradient = gradient + a * jnp.sign(d)
    if terms & L2:
        gradient = gradient + b * d
    return gradient


def clip(d: jax.Array, limit: Any) -> jax.Array:
    """d limited to [-limit, limit]; a NaN stays. d - clip(d, t) is the soft threshold, exactly 0 within the limits."""
    return jnp.where(d > limit, limit, jnp.where(d < -limit, -limit, d))


def written(op: Op, x: jax.Array, anchor: jax.Array | None, a: Any, b: Any, terms: int) -> jax.Array:
    """What the operation writes for each element, in float32 or wider."""
    d = displacement(x, anchor)
    if op is Op.GRADIENT:
        return subgradient(d, a, b, terms)
    if op is Op.PROX:
        origin = jnp.zeros_like(d) if anchor is None else wide(anchor)
        return origin + b * (d - clip(d, a))
    raise NotImplementedError(f"{op.name} has no formula in JAX")
