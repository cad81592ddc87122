"""Leaves in groups -> launches -> sums for each group, and arrays like the leaves. Batching; no calculus.

There is one launch for each of `mesh.classes`; outside a user's `shard_map` there is one class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from .._core.operations import Op
from . import mesh
from .slots import Stats, Sums, Writes, result_dtype

Arrays = Sequence[jax.Array]
__all__ = ["gradients", "new_leaves", "result_dtype", "stats", "sums"]


def sums(
    backend: str | None, of_leaf: tuple[int, ...], leaves: Arrays, anchors: Arrays
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """(sums (groups, 2), ones). The echo of a launch: a scalar 1 that exists only once the leaves have been read."""
    totals, ones = [], []
    for members, *operands in launches(leaves, anchors):
        call = Sums(backend, pick(of_leaf, members), 1 + max(of_leaf))
        (total,), (one,), _ = batched(call, 0)((), *operands)
        totals.append(total)
        ones.append(one)
    return functools.reduce(jnp.add, totals), tuple(ones)


def gradients(
    backend: str | None,
    of_leaf: tuple[int, ...],
    terms: tuple[int, ...],
    coefficients: jax.Array,
    leaves: Arrays,
    anchors: Arrays,
) -> tuple[jax.Array, ...]:
    """(sums (groups, 2), gradient...); coefficients (groups, 2)."""
    totals, found = _writes(backend, Op.GRADIENT, of_leaf, terms, coefficients, leaves, anchors, with_sums=True)
    return functools.reduce(jnp.add, totals), *found


def new_leaves(
    op: Op,
    backend: str | None,
    of_leaf: tuple[int, ...],
    terms: tuple[int, ...],
    coefficients: jax.Array,
    leaves: Arrays,
    anchors: Arrays,
    *,
    in_place: bool,
) -> tuple[jax.Array, ...]:
    """The new leaves; coefficients (groups, 2)."""
    _, found = _writes(backend, op, of_leaf, terms, coefficients, leaves, anchors, in_place=in_place)
    return found


def stats(backend: str | None, leaves: Arrays, anchors: Arrays) -> tuple[jax.Array, jax.Array]:
    """(Σ|d|, Σd², max|d| (n, 3), zeros and non-finite numbers (n, 2))."""
    parts, order = [], []
    for members, *operands in launches(leaves, anchors):
        parts.append(batched(Stats(backend, len(members)), 0)((), *operands)[0])
        order += members
    if len(parts) == 1:
        return parts[0]
    back = np.argsort(order)
    reals, counts = (jnp.concatenate(kind)[back] for kind in zip(*parts, strict=True))
    return reals, counts


def _writes(
    backend: str | None,
    op: Op,
    of_leaf: tuple[int, ...],
    terms: tuple[int, ...],
    coefficients: jax.Array,
    leaves: Arrays,
    anchors: Arrays,
    *,
    with_sums: bool = False,
    in_place: bool = False,
) -> tuple[list[jax.Array], tuple[jax.Array, ...]]:
    """(the sums of each launch, an array for each leaf)."""
    totals: list[jax.Array] = []
    written: dict[int, jax.Array] = {}
    for members, *operands in launches(leaves, anchors):
        call = Writes(backend, op, pick(of_leaf, members), terms, with_sums, in_place)
        found, _, arrays = batched(call, 0)((coefficients,), *operands)
        totals += found
        written.update(zip(members, arrays, strict=True))
    return totals, tuple(written[i] for i in range(len(leaves)))


def launches(leaves: Arrays, *beside: Arrays) -> Iterator[tuple[Any, ...]]:
    """(members, their leaves, their anchors, ...) of each class."""
    of_leaf = mesh.classes(leaves, *beside)
    for k in range(1 + max(of_leaf)):
        members = [i for i, c in enumerate(of_leaf) if c == k]
        yield members, pick(leaves, members), *(pick(a, members) if a else () for a in beside)


def pick(values: Sequence[Any], members: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[i] for i in members)


@functools.cache
def batched(call: mesh.Local, batch_rank: int) -> Callable[..., Any]:
    """The call on arrays that begin with `batch_rank` batch dimensions, each 1 or the batch size."""

    @custom_vmap
    def run(*operands: Arrays) -> Any:
        return mesh.spread(call, batch_rank, *operands)

    @run.def_vmap
    def _(axis_size: int, in_batched: Any, *operands: Any) -> Any:
        rows = jax.tree.map(lambda x, b: x if b else x[None], operands, tuple(in_batched))
        totals, ones, arrays = batched(call, batch_rank + 1)(*rows)
        flags = tuple(tuple(flag for _ in part) for part, flag in ((totals, True), (ones, False), (arrays, True)))
        return (totals, ones, arrays), flags

    return run
