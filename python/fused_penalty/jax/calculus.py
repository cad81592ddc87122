"""The primitive and its calculus: one rule, linear in the tangents, that calls the primitive itself.

    P = Σ_g ( l1_g · S_g0 + l2_g · S_g1 )          S_g = (Σ|d|, Σd²) over the leaves of group g, d = x - anchor
    dP = Σ_i Σ ( one·l1·sign(d_i) + one·2·l2·d_i ) · (dx_i - da_i)  +  Σ_g ( dl1_g·S_g0 + dl2_g·S_g1 )

`one` is the echo, a scalar 1.0 that the launch returns (inside a user's `shard_map` there may be several, one for each
class of leaves). Through it the gradient depends on the launch, so
XLA knows that the parameters have been read before it updates donated buffers, and copies nothing. For
that the strengths stay separate scalars: slices of one array would tie all gradients together.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .._core.operations import Op
from . import launch
from .elastic_net import displacement, subgradient, wide, written
from .mesh import classes
from .strengths import coefficients

Arrays = Sequence[jax.Array]


@dataclass(frozen=True)
class Spec:
    """The static part of a call."""

    backend: str | None
    of_leaf: tuple[int, ...]  # group of each leaf
    terms: tuple[int, ...]  # of each group: which strengths are not statically zero


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def primitive(
    spec: Spec, l1: Arrays, l2: Arrays, leaves: Arrays, anchors: Arrays
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """(P, sums (groups, 2), ones); l1 and l2 hold one scalar per group."""
    total, ones = launch.sums(spec.backend, spec.of_leaf, leaves, anchors)
    return combine(l1, l2, total), total, ones


def combine(l1: Arrays, l2: Arrays, total: jax.Array) -> jax.Array:
    """Σ_g l1_g·S_g0 + l2_g·S_g1, pairwise; a zero strength removes its term even if the sum is not finite."""
    strengths = jnp.stack([jnp.stack(l1), jnp.stack(l2)], axis=-1).astype(total.dtype)
    products = jnp.where(strengths == 0, 0, strengths * total).ravel()
    while products.size > 1:
        products = jnp.pad(products, (0, products.size % 2)).reshape(-1, 2).sum(axis=1)
    return products[0]


@functools.partial(primitive.defjvp, symbolic_zeros=True)
def _rule(spec: Spec, primals: Any, tangents: Any) -> Any:
    l1, l2, leaves, anchors = primals
    d_l1, d_l2, d_leaves, d_anchors = tangents
    value, total, ones = primitive(spec, *primals)
    flat = [t for t in (*d_leaves, *d_anchors) if not _is_zero(t)]
    live = [(i, i < len(leaves)) for i, t in enumerate((*d_leaves, *d_anchors)) if not _is_zero(t)]
    d_value = zero = _zero(ones, total.dtype)
    d_total: list[list[jax.Array]] = [[zero, zero] for _ in l1]
    if live:
        d_value, d_total = _leaf_tangents(spec, tuple(live), total.dtype, ones, l1, l2, leaves, anchors, flat)
    for k, d_strengths in enumerate((d_l1, d_l2)):
        for g, d in enumerate(d_strengths):
            if not _is_zero(d):
                d_value = d_value + total[g, k] * d.astype(total.dtype)
    d_sums = jnp.stack([jnp.stack(row) for row in d_total])
    return (value, total, ones), (d_value, d_sums, tuple(0 * one for one in ones))


def _zero(ones: Arrays, dtype: Any) -> jax.Array:
    """Not 0 * P, which is NaN where P is inf; varies over the manual axes that P varies over."""
    return functools.reduce(jnp.add, [0 * one.astype(dtype) for one in ones])


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is SymbolicZero


# One checkpoint around all leaves: the residuals are the leaves and some scalars, never gradients.
@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(0, 1, 2))
def _leaf_tangents(
    spec: Spec,
    live: tuple[tuple[int, bool], ...],
    dtype: Any,
    ones: Arrays,
    l1: Arrays,
    l2: Arrays,
    leaves: Arrays,
    anchors: Arrays,
    tangents: Arrays,
) -> tuple[jax.Array, list[list[jax.Array]]]:
    """dP from the leaves (or from the anchors, with the opposite sign), and dS for each group."""
    n = len(leaves)
    zero = _zero(ones, dtype)
    d_value, d_total = zero, [[zero, zero] for _ in l1]
    of_leaf = list(zip(classes(leaves, anchors), spec.of_leaf, strict=True))
    factors = {
        (c, g): tuple(ones[c].astype(v.dtype) * v for v in (l1[g], 2 * l2[g])) for c, g in dict.fromkeys(of_leaf)
    }
    for (index, is_leaf), tangent in zip(live, tangents, strict=True):
        i = index % n
        g = spec.of_leaf[i]
        d = displacement(leaves[i], anchors[i] if anchors else None)
        t = tangent.astype(d.dtype) if is_leaf else -tangent.astype(d.dtype)
        a, b = (f.astype(d.dtype) for f in factors[of_leaf[i]])
        d_value = d_value + jnp.sum(subgradient(d, a, b, spec.terms[g]) * t).astype(dtype)
        d_total[g][0] = d_total[g][0] + jnp.sum(jnp.sign(d) * t).astype(dtype)
        d_total[g][1] = d_total[g][1] + 2 * jnp.sum(d * t).astype(dtype)
    return d_value, d_total


def unfused(
    op: Op,
    of_leaf: Sequence[int],
    terms: Sequence[int],
    step: Any,
    l1: Sequence[Any],
    l2: Sequence[Any],
    leaves: Arrays,
    anchors: Arrays,
) -> list[jax.Array]:
    """What the operation writes for each leaf, in float32 or wider: jnp that XLA fuses into its users."""
    found = []
    for i, g in enumerate(of_leaf):
        a, b = coefficients(op, l1[g], l2[g], step, wide(leaves[i]).dtype)
        found.append(written(op, leaves[i], anchors[i] if anchors else None, a, b, terms[g]))
    return found


def _coefficients(op: Op, l1: Arrays, l2: Arrays, step: Any, dtype: Any) -> jax.Array:
    """(a, b) of the operation for each group, (groups, 2)."""
    return jnp.stack([jnp.stack(coefficients(op, a, b, step, dtype)) for a, b in zip(l1, l2, strict=True)])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def value_and_gradients(spec: Spec, l1: Arrays, l2: Arrays, leaves: Arrays, anchors: Arrays) -> tuple[jax.Array, ...]:
    """(P, gradient...) from one launch."""
    dtype = launch.result_dtype(leaves)
    rows = _coefficients(Op.GRADIENT, l1, l2, 1.0, dtype)
    total, *found = launch.gradients(spec.backend, spec.of_leaf, spec.terms, rows, leaves, anchors)
    return combine(l1, l2, total), *found


@value_and_gradients.defjvp
def _gradients_rule(spec: Spec, primals: Any, tangents: Any) -> Any:
    def formula(l1: Arrays, l2: Arrays, leaves: Arrays, anchors: Arrays) -> tuple[jax.Array, ...]:
        found = unfused(Op.GRADIENT, spec.of_leaf, spec.terms, 1.0, l1, l2, leaves, anchors)
        rounded = [g.astype(x.dtype) for g, x in zip(found, leaves, strict=True)]
        return primitive(spec, l1, l2, leaves, anchors)[0], *rounded

    _, out_tangents = jax.jvp(formula, primals, tangents)
    return value_and_gradients(spec, *primals), out_tangents


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def written_leaves(
    op: Op, spec: Spec, in_place: bool, step: jax.Array, l1: Arrays, l2: Arrays, leaves: Arrays, anchors: Arrays
) -> tuple[jax.Array, ...]:
    """What an operation that writes the leaves makes of each, from one launch."""
    dtype = launch.result_dtype(leaves)
    rows = _coefficients(op, l1, l2, step, dtype)
    return launch.new_leaves(op, spec.backend, spec.of_leaf, spec.terms, rows, leaves, anchors, in_place=in_place)


@written_leaves.defjvp
def _written_rule(op: Op, spec: Spec, in_place: bool, primals: Any, tangents: Any) -> Any:
    def formula(step: jax.Array, l1: Arrays, l2: Arrays, leaves: Arrays, anchors: Arrays) -> tuple[jax.Array, ...]:
        found = unfused(op, spec.of_leaf, spec.terms, step, l1, l2, leaves, anchors)
        return tuple(y.astype(x.dtype) for y, x in zip(found, leaves, strict=True))

    _, out_tangents = jax.jvp(formula, primals, tangents)
    return written_leaves(op, spec, False, *primals), out_tangents


@functools.partial(jax.jit, static_argnums=0)
def stats(backend: str | None, leaves: Arrays, anchors: Arrays) -> tuple[jax.Array, jax.Array]:
    return launch.stats(backend, leaves, anchors)


@functools.partial(jax.jit, static_argnums=0)
def penalty(spec: Spec, l1: Arrays, l2: Arrays, leaves: Arrays, anchors: Arrays) -> jax.Array:
    return primitive(spec, l1, l2, leaves, anchors)[0]


@functools.partial(jax.jit, static_argnums=0)
def sums(spec: Spec, leaves: Arrays, anchors: Arrays) -> jax.Array:
    zeros = (jnp.float32(0),) * len(spec.terms)
    return primitive(spec, zeros, zeros, leaves, anchors)[1]


penalty_and_grad = jax.jit(value_and_gradients, static_argnums=0)
new_leaves = jax.jit(written_leaves, static_argnums=(0, 1, 2))
