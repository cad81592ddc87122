"""Leaves in groups -> one launch -> sums for each group. Batching and the choice of platform; no calculus.

vmap turns every row of a batched leaf into a slot of the plan, so a batched call is still one launch
and the kernels know nothing about batches.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from . import _backends
from ._plan import BOTH, DTYPES, Plan

Arrays = Sequence[jax.Array]


def result_dtype(leaves: Arrays) -> Any:
    """float32, or float64 if any leaf is."""
    return jnp.float64 if any(x.dtype == jnp.float64 for x in leaves) else jnp.float32


def sums(backend: str | None, of_leaf: tuple[int, ...], leaves: Arrays, anchors: Arrays) -> tuple[jax.Array, jax.Array]:
    """(sums (groups, 2), one). `one` is a scalar 1 that exists only once the leaves have been read."""
    return _batched_sums(backend, of_leaf, 0)(*leaves, *anchors)


def gradients(
    backend: str | None,
    of_leaf: tuple[int, ...],
    terms: tuple[int, ...],
    strengths: jax.Array,
    leaves: Arrays,
    anchors: Arrays,
) -> tuple[jax.Array, ...]:
    """(sums (groups, 2), gradient...); strengths (groups, 2) are the factors of sign(d) and of d."""
    return _batched_writes(backend, "slot_gradients", of_leaf, terms, 0)(strengths, *leaves, *anchors)


def proximal(
    backend: str | None,
    of_leaf: tuple[int, ...],
    strengths: jax.Array,
    leaves: Arrays,
    anchors: Arrays,
    *,
    in_place: bool,
) -> tuple[jax.Array, ...]:
    """The new leaves; strengths (groups, 2) are the threshold and the factor after it."""
    verb = "slot_prox_in_place" if in_place else "slot_prox"
    terms = (BOTH,) * len(strengths)
    return _batched_writes(backend, verb, of_leaf, terms, 0)(strengths, *leaves, *anchors)


def stats(backend: str | None, leaves: Arrays, anchors: Arrays) -> tuple[jax.Array, jax.Array]:
    """(Σ|d|, Σd², max|d| (n, 3), zeros and non-finite numbers (n, 2))."""
    return _batched_stats(backend, len(leaves), 0)(*leaves, *anchors)


def _dispatch(backend: str | None, verb: str, *operands: jax.Array, **static: Any) -> Any:
    """Lowers to the launcher of the platform that is compiled for."""
    branches: dict[str, Callable[..., Any]] = {}
    for row in _backends.rows("jax", backend):
        function = functools.partial(_apply, getattr(row.launcher(), verb), **static)
        for platform in row.devices:
            branches.setdefault("default" if platform == "any" else platform, function)
    if list(branches) == ["default"]:
        return branches["default"](*operands)
    return jax.lax.platform_dependent(*operands, **branches)


def _apply(function: Callable[..., Any], *operands: jax.Array, plan: Plan, dtype: Any, lead: int) -> Any:
    return tuple(function(plan, *operands[:lead], operands[lead:], dtype))


@functools.cache
def _batched_sums(backend: str | None, of_leaf: tuple[int, ...], batch_rank: int) -> Callable[..., Any]:
    """The call on arrays that begin with `batch_rank` batch dimensions, each 1 or the batch size."""
    n = len(of_leaf)

    @custom_vmap
    def call(*arrays: jax.Array) -> Any:
        if len(arrays) > n:  # a leaf and its anchor are read together: give both the rows of either
            arrays = _align(arrays[:n], arrays[n:], batch_rank)
        leaves = arrays[:n]
        shapes = [x.shape[:batch_rank] for x in leaves]
        first: dict[tuple[int, tuple[int, ...]], int] = {}  # leaves that add to the same sums
        count = 0
        for key in sorted(set(zip(of_leaf, shapes, strict=True))):
            first[key] = count
            count += math.prod(key[1])
        keys = list(zip(of_leaf, shapes, strict=True))
        plan = _plan(leaves, batch_rank, [first[k] for k in keys], [BOTH] * n)
        total, one = _dispatch(backend, "slot_sums", *arrays, plan=plan, dtype=result_dtype(leaves), lead=0)
        return (_per_group(total, first, shapes) if batch_rank else total), one

    @call.def_vmap
    def _(axis_size: int, in_batched: Sequence[bool], *arrays: jax.Array) -> Any:
        rows = [x if b else x[None] for x, b in zip(arrays, in_batched, strict=True)]
        return _batched_sums(backend, of_leaf, batch_rank + 1)(*rows), (True, False)

    return call


def _align(leaves: Arrays, anchors: Arrays, batch_rank: int) -> tuple[jax.Array, ...]:
    pairs = []
    for x, a in zip(leaves, anchors, strict=True):
        batch = jnp.broadcast_shapes(x.shape[:batch_rank], a.shape[:batch_rank])
        pairs.append([jnp.broadcast_to(v, batch + v.shape[batch_rank:]) for v in (x, a)])
    return tuple(x for x, _ in pairs) + tuple(a for _, a in pairs)


def _plan(leaves: Arrays, batch_rank: int, slots: Sequence[int], terms: Sequence[int]) -> Plan:
    return Plan(
        tuple(math.prod(x.shape[batch_rank:]) for x in leaves),
        tuple(DTYPES.index(x.dtype.name) for x in leaves),
        tuple(slots),
        tuple(math.prod(x.shape[:batch_rank]) for x in leaves),
        tuple(terms),
    )


def _per_group(total: jax.Array, first: dict[Any, int], shapes: list[tuple[int, ...]]) -> jax.Array:
    """(slots, k) -> (batch..., groups, k): unbatched and batched leaves of a group have sums of their own."""
    batch = jnp.broadcast_shapes(*set(shapes))
    groups: list[Any] = [0] * (1 + max(group for group, _ in first))
    for (group, shape), start in first.items():
        rows = total[start : start + math.prod(shape)].reshape(*shape, total.shape[-1])
        groups[group] = groups[group] + jnp.broadcast_to(rows, (*batch, total.shape[-1]))
    return jnp.stack(groups, axis=-2)


@functools.cache
def _batched_stats(backend: str | None, n: int, batch_rank: int) -> Callable[..., Any]:
    """As `_batched_sums`, a slot for each row of each leaf."""

    @custom_vmap
    def call(*arrays: jax.Array) -> Any:
        if len(arrays) > n:
            arrays = _align(arrays[:n], arrays[n:], batch_rank)
        leaves = arrays[:n]
        shapes = [x.shape[:batch_rank] for x in leaves]
        starts = [0, *itertools.accumulate(map(math.prod, shapes))][:n]
        plan = _plan(leaves, batch_rank, starts, [BOTH] * n)
        parts = _dispatch(backend, "slot_stats", *arrays, plan=plan, dtype=result_dtype(leaves), lead=0)
        first = {(i, shape): start for i, (shape, start) in enumerate(zip(shapes, starts, strict=True))}
        return tuple(_per_group(part, first, shapes) for part in parts)

    @call.def_vmap
    def _(axis_size: int, in_batched: Sequence[bool], *arrays: jax.Array) -> Any:
        rows = [x if b else x[None] for x, b in zip(arrays, in_batched, strict=True)]
        return _batched_stats(backend, n, batch_rank + 1)(*rows), (True, True)

    return call


@functools.cache
def _batched_writes(
    backend: str | None, verb: str, of_leaf: tuple[int, ...], terms: tuple[int, ...], batch_rank: int
) -> Callable[..., Any]:
    """As `_batched_sums`: sums, if the verb gives them, and an array a leaf. Every array gets the whole batch, since
    every output has it."""
    n = len(of_leaf)

    @custom_vmap
    def call(strengths: jax.Array, *arrays: jax.Array) -> Any:
        groups = strengths.shape[-2]
        batch = jnp.broadcast_shapes(*{x.shape[:batch_rank] for x in (strengths, *arrays)})
        whole = [jnp.broadcast_to(x, batch + x.shape[batch_rank:]) for x in arrays]
        table = jnp.broadcast_to(strengths, batch + strengths.shape[batch_rank:])
        table = jnp.moveaxis(table, -2, 0).reshape(-1, 2)  # slot = group * rows + row
        slots = [g * math.prod(batch) for g in of_leaf]
        plan = _plan(whole[:n], batch_rank, slots, [terms[g] for g in of_leaf])
        found = _dispatch(backend, verb, table, *whole, plan=plan, dtype=result_dtype(arrays[:n]), lead=1)
        totals = [jnp.moveaxis(total.reshape(groups, *batch, 2), 0, -2) for total in found[:-n]]
        return *totals, *found[-n:]

    @call.def_vmap
    def _(axis_size: int, in_batched: Sequence[bool], *operands: jax.Array) -> Any:
        rows = [x if b else x[None] for x, b in zip(operands, in_batched, strict=True)]
        found = _batched_writes(backend, verb, of_leaf, terms, batch_rank + 1)(*rows)
        return found, (True,) * len(found)

    return call
