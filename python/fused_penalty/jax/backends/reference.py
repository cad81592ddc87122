"""The penalty in plain jnp, to read and to fall back on. No native code, no custom differentiation rule.

    penalty            Σ_i ( l1 · Σ|x_i| + l2 · Σ x_i² )
    penalty_and_grad   the same, and l1 · sign(x_i) + 2 · l2 · x_i with sign(±0) = 0
    sums               Σ|x_i| and Σ x_i² for each leaf
    prox               S(x_i, step·l1) / (1 + 2·step·l2), S(x, t) = x - clip(x, -t, t)

These take a pytree and two scalars. `fused_penalty.jax` with `backend="reference"` adds masks, strengths for
each leaf, anchors and differentiation, and calls `slot_sums` where another backend calls its kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._core.plan import L1, L2, Plan

RUN = 16  # float32 numbers added up in a row (`kRun` of kernels/elastic_net.h); beyond that the sum is carried in two


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _add_pairs(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(high, low) + (high, low): the rounding error of the sum (Knuth's two-sum) goes to the low part."""
    high = a[0] + b[0]
    back = high - a[0]
    error = (a[0] - (high - back)) + (b[0] - back)
    # An infinite sum has no rounding error; inf - inf would make it NaN. Not jnp.where: its function, called inside
    # a reduction whose result nobody needs, crashes the compiler of jaxlib 0.10.2.
    return high, jax.lax.select(jnp.isfinite(high), error, jnp.zeros_like(error)) + (a[1] + b[1])


def accurate_sum(v: jax.Array) -> jax.Array:
    """Σv over the last axis, to about 1e-7 relative for values of one sign, without a wider type."""
    if v.dtype == jnp.float64:
        return jnp.sum(v, axis=-1)
    padding = [(0, 0)] * (v.ndim - 1) + [(0, -v.shape[-1] % RUN)]
    runs = jnp.sum(jnp.pad(v, padding).reshape(*v.shape[:-1], RUN, -1), axis=-2)
    zero = jnp.zeros((), v.dtype)
    high, low = jax.lax.reduce((runs, jnp.zeros_like(runs)), (zero, zero), _add_pairs, (runs.ndim - 1,))
    return high + low


@jax.jit
def row_sums(x: jax.Array) -> jax.Array:
    """(..., 2): Σ|x| and Σx² over the last axis, in float32 or wider."""
    x = _wide(x)
    return jnp.stack([accurate_sum(jnp.abs(x)), accurate_sum(x * x)], axis=-1)


def sums(params: Any) -> tuple[jax.Array, jax.Array]:
    """(Σ|x_i|, Σx_i²), each of shape (leaves,).

    >>> from fused_penalty import reference
    >>> reference.sums({"w": jnp.array([1.0, -2.0])})[1].tolist()
    [5.0]
    """
    found = jnp.stack([row_sums(jnp.ravel(x)) for x in jax.tree.leaves(params)])
    return found[:, 0], found[:, 1]


def penalty(params: Any, l1: Any = 0.0, l2: Any = 0.0) -> jax.Array:
    """Σ_i ( l1·Σ|x_i| + l2·Σx_i² ), a scalar.

    >>> from fused_penalty import reference
    >>> float(reference.penalty([jnp.array([1.0, -2.0])], l1=1.0, l2=0.5))
    5.5
    """
    absolute, square = sums(params)
    first, second = accurate_sum(absolute), accurate_sum(square)
    return jnp.where(l1 == 0, 0, l1 * first) + jnp.where(l2 == 0, 0, l2 * second)


def penalty_and_grad(params: Any, l1: Any = 0.0, l2: Any = 0.0) -> tuple[jax.Array, Any]:
    """The penalty and its gradient, a pytree like params.

    >>> from fused_penalty import reference
    >>> reference.penalty_and_grad([jnp.array([0.0, -2.0])], l1=1.0, l2=0.5)[1][0].tolist()
    [0.0, -3.0]
    """

    def gradient(x: jax.Array) -> jax.Array:
        d = _wide(x)
        return (l1 * jnp.sign(d) + 2 * l2 * d).astype(x.dtype)

    return penalty(params, l1, l2), jax.tree.map(gradient, params)


def prox(params: Any, l1: Any = 0.0, l2: Any = 0.0, step: Any = 1.0) -> Any:
    """The proximal step of the penalty, a pytree like params.

    >>> from fused_penalty import reference
    >>> reference.prox([jnp.array([0.5, -2.0])], l1=1.0, l2=0.5)[0].tolist()
    [0.0, -0.5]
    """

    def leaf(x: jax.Array) -> jax.Array:
        d = _wide(x)
        return proximal_leaf(d, jnp.zeros_like(d), step * l1, 1 / (1 + 2 * step * l2)).astype(x.dtype)

    return jax.tree.map(leaf, params)


# The backend: what fused_penalty.jax calls.


def _rows(plan: Plan, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Each leaf as (rows, size), minus its anchor where there are anchors."""
    n = len(plan.sizes)
    shapes = list(zip(plan.rows, plan.sizes, strict=True))
    found = [_wide(x).reshape(s) for x, s in zip(arrays[:n], shapes, strict=True)]
    if len(arrays) == n:
        return found
    return [x - _wide(a).reshape(x.shape) for x, a in zip(found, arrays[n:], strict=True)]


def _totals(plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """The sums (slots, 2) of leaves followed by their anchors, if any."""
    members: dict[int, list[jax.Array]] = {}  # leaves that share their slots
    for x, first in zip(_rows(plan, arrays), plan.slots, strict=True):
        members.setdefault(first, []).append(row_sums(x).astype(dtype))
    totals = [m[0] if len(m) == 1 else accurate_sum(jnp.stack(m, axis=-1)) for _, m in sorted(members.items())]
    return jnp.concatenate(totals)


def slot_sums(plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(sums (slots, 2), one) of leaves followed by their anchors, if any."""
    # The echo: a 1 that exists only once the sums do.
    return jax.lax.optimization_barrier((_totals(plan, arrays, dtype), jnp.float32(1)))


def slot_gradients(plan: Plan, strengths: jax.Array, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, ...]:
    """(sums (slots, 2), gradient...): strengths (slots, 2) hold the factors of sign(d) and of d."""
    totals = _totals(plan, arrays, dtype)
    gradients = []
    for x, d, first, terms in zip(arrays, _rows(plan, arrays), plan.slots, plan.terms, strict=False):
        rows = strengths[first : first + d.shape[0]].astype(d.dtype)
        gradients.append(term_gradient(d, rows[:, :1], rows[:, 1:], terms).reshape(x.shape).astype(x.dtype))
    return totals, *gradients


def slot_prox(plan: Plan, strengths: jax.Array, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, ...]:
    """(new leaf...): strengths (slots, 2) hold the threshold and the factor after it."""
    n = len(plan.sizes)
    found = []
    for i, (x, d, first) in enumerate(zip(arrays, _rows(plan, arrays), plan.slots, strict=False)):
        rows = strengths[first : first + d.shape[0]].astype(d.dtype)
        origin = _wide(arrays[n + i]).reshape(d.shape) if len(arrays) > n else jnp.zeros_like(d)
        found.append(proximal_leaf(d, origin, rows[:, :1], rows[:, 1:]).reshape(x.shape).astype(x.dtype))
    return tuple(found)


slot_prox_in_place = slot_prox  # XLA itself reuses the memory of an operand that nobody needs any more


def slot_stats(plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(Σ|d|, Σd², max|d| (slots, 3), counts of zeros and of non-finite numbers (slots, 2))."""
    reals, counts = [], []
    integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
    for d in _rows(plan, arrays):
        largest = jnp.max(jnp.abs(d), axis=-1, initial=0)
        largest = jnp.where(jnp.isnan(d).any(axis=-1), jnp.nan, largest)  # XLA's maximum on CPU may lose a NaN
        reals.append(jnp.concatenate([row_sums(d), largest[:, None]], axis=-1).astype(dtype))
        counts.append(jnp.stack([jnp.sum(f, axis=-1, dtype=integer) for f in (d == 0, ~jnp.isfinite(d))], axis=-1))
    return jnp.concatenate(reals), jnp.concatenate(counts)


def proximal_leaf(d: jax.Array, origin: jax.Array, limit: Any, factor: Any) -> jax.Array:
    """origin + factor·(d - clip(d, -limit, limit)): exactly the origin within the limits, NaN for NaN."""
    clipped = jnp.where(d > limit, limit, jnp.where(d < -limit, -limit, d))
    return origin + factor * (d - clipped)


def term_gradient(d: jax.Array, a: Any, b: Any, terms: int) -> jax.Array:
    """a·sign(d) + b·d, without a term that is statically absent (0·inf would be NaN)."""
    gradient = jnp.zeros_like(d)
    if terms & L1:
        gradient = gradient + a * jnp.sign(d)
    if terms & L2:
        gradient = gradient + b * d
    return gradient
