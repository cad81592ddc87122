"""The launch on the parts that one device holds: slots and plan.

vmap turns every row of a batched leaf into a slot of the plan, so a batched call is still one launch
and the kernels know nothing about batches. On a mesh, leaves of a group that are held by more or
fewer devices than others have slots of their own, since they count with another share.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core.dtypes import DTYPES
from .._core.operations import Op
from .._core.plan import BOTH, Plan
from .._core.protocols import JaxBackend, Launched
from .dispatch import launched
from .shares import Shares

Arrays = Sequence[jax.Array]
Found = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...], tuple[jax.Array, ...]]  # totals, ones, arrays


class Slot(NamedTuple):
    """Leaves that add to the same sums. `idle`: the axes of the mesh over which they are not sharded, where this
    matters beside their share."""

    group: int
    share: float
    batch: tuple[int, ...]
    idle: tuple[str, ...] = ()


COUNTS = 2  # the last columns of operations and steps that count


def count_dtype(dtype: Any) -> Any:
    """Of counts beside totals of this dtype."""
    return jnp.int64 if dtype == jnp.float64 else jnp.int32


def result_dtype(leaves: Arrays) -> Any:
    """float32, or float64 if any leaf is."""
    return jnp.float64 if any(x.dtype == jnp.float64 for x in leaves) else jnp.float32


@dataclass(frozen=True)
class Operation:
    """The launch of an operation on (coefficients if it has any, leaves..., anchors...)."""

    op: Op
    plan: Plan
    dtype: Any
    in_place: bool
    is_step = False

    def results(self, *operands: Any) -> Launched:
        slots, width = self.plan.slot_count, len(self.op.columns)
        of = functools.partial(jax.ShapeDtypeStruct, dtype=self.dtype)
        if self.op.counts:
            reals = width - COUNTS
            totals: Any = (of((slots, reals)), jax.ShapeDtypeStruct((slots, COUNTS), count_dtype(self.dtype)))
        else:
            totals = (of((slots, width)),)
        if not self.op.writes:
            return Launched(totals, jax.ShapeDtypeStruct((), np.float32), ())
        leaves = operands[1 : 1 + len(self.plan.sizes)]
        return Launched(totals, None, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves))

    def __call__(self, launcher: JaxBackend, *operands: jax.Array) -> Launched:
        coefficients, arrays = (operands[0], operands[1:]) if self.op.writes else (None, operands)
        return launcher.launch(self.op, self.plan, coefficients, arrays, self.dtype, in_place=self.in_place)


@dataclass(frozen=True)
class Sums:
    """The launch for the sums of each group, and an echo."""

    backend: str | None
    of_leaf: tuple[int, ...]
    groups: int
    writes = 0
    totals = 1

    def __call__(self, batch_rank: int, shares: Shares, _: Arrays, leaves: Arrays, anchors: Arrays) -> Found:
        leaves, anchors = _align(leaves, anchors, batch_rank)
        slots = [Slot(g, s, x.shape[:batch_rank]) for g, s, x in zip(self.of_leaf, shares.of_leaf, leaves, strict=True)]
        first = first_rows(slots)
        found = _launch(self.backend, Op.SUMS, batch_rank, slots, first, BOTH, None, leaves, anchors)
        assert found.one is not None
        return (over_devices(found.totals[0], first, self.groups, shares.axes),), (found.one,), ()


@dataclass(frozen=True)
class Writes:
    """The launch for an array like each leaf, and for the sums of each group if requested. Every array gets the whole
    batch."""

    backend: str | None
    op: Op
    of_leaf: tuple[int, ...]
    terms: tuple[int, ...]
    with_sums: bool
    in_place: bool
    writes = 1

    @property
    def totals(self) -> int:
        return int(self.with_sums)

    def __call__(self, batch_rank: int, shares: Shares, tables: Arrays, leaves: Arrays, anchors: Arrays) -> Found:
        (coefficients,) = tables
        batch = jnp.broadcast_shapes(*{x.shape[:batch_rank] for x in (coefficients, *leaves, *anchors)})
        leaves, anchors = ([jnp.broadcast_to(x, batch + x.shape[batch_rank:]) for x in a] for a in (leaves, anchors))
        slots = [Slot(g, s, batch) for g, s in zip(self.of_leaf, shares.of_leaf, strict=True)]
        first = first_rows(slots)
        table = table_of(coefficients, first, batch)
        terms = [self.terms[g] for g in self.of_leaf]
        found = _launch(
            self.backend, self.op, batch_rank, slots, first, terms, table, leaves, anchors, in_place=self.in_place
        )
        totals = found.totals if self.with_sums else ()
        return tuple(over_devices(t, first, len(self.terms), shares.axes) for t in totals), (), found.arrays


@dataclass(frozen=True)
class Stats:
    """(Σ|d|, Σd², max|d| (n, 3), zeros and non-finite numbers (n, 2)): a slot for each row of each leaf."""

    backend: str | None
    leaves: int
    writes = 0
    totals = 2

    def __call__(self, batch_rank: int, shares: Shares, _: Arrays, leaves: Arrays, anchors: Arrays) -> Found:
        leaves, anchors = _align(leaves, anchors, batch_rank)
        slots = [Slot(i, 1.0, x.shape[:batch_rank]) for i, x in enumerate(leaves)]
        first = first_rows(slots)
        found = _launch(self.backend, Op.STATS, batch_rank, slots, first, BOTH, None, leaves, anchors)
        reals, counts = (per_group(part, first, self.leaves) for part in found.totals)
        return (_stats_over_devices(reals, counts, shares) if shares.axes else (reals, counts)), (), ()


def _align(leaves: Arrays, anchors: Arrays, batch_rank: int) -> tuple[Arrays, Arrays]:
    """Give a leaf and its anchor, which are read together, the same rows."""
    if not anchors or not batch_rank:
        return leaves, anchors
    pairs = []
    for x, a in zip(leaves, anchors, strict=True):
        batch = jnp.broadcast_shapes(x.shape[:batch_rank], a.shape[:batch_rank])
        pairs.append([jnp.broadcast_to(v, batch + v.shape[batch_rank:]) for v in (x, a)])
    return [x for x, _ in pairs], [a for _, a in pairs]


def first_rows(slots: Sequence[Slot]) -> dict[Slot, int]:
    """Where the rows of each distinct slot begin in the sums."""
    first, count = {}, 0
    for slot in sorted(set(slots)):
        first[slot] = count
        count += math.prod(slot.batch)
    return first


def table_of(coefficients: jax.Array, first: dict[Slot, int], batch: tuple[int, ...]) -> jax.Array:
    """(batch or 1..., groups, k) -> (rows, k), the coefficients of each row of each slot."""
    rows = coefficients[..., np.array([slot.group for slot in first]), :]
    rows = jnp.broadcast_to(rows, batch + rows.shape[-2:])
    return jnp.moveaxis(rows, -2, 0).reshape(-1, rows.shape[-1])  # a group's rows of the batch are adjacent


def _launch(
    backend: str | None,
    op: Op,
    batch_rank: int,
    slots: Sequence[Slot],
    first: dict[Slot, int],
    terms: int | Sequence[int],
    coefficients: jax.Array | None,
    leaves: Arrays,
    anchors: Arrays,
    *,
    in_place: bool = False,
) -> Launched:
    plan = plan_of(batch_rank, slots, first, (terms,) * len(leaves) if isinstance(terms, int) else terms, leaves)
    before = () if coefficients is None else (coefficients,)
    return launched(backend, Operation(op, plan, result_dtype(leaves), in_place), *before, *leaves, *anchors)


def plan_of(
    batch_rank: int, slots: Sequence[Slot], first: dict[Slot, int], terms: Sequence[int], leaves: Arrays
) -> Plan:
    return Plan(
        tuple(math.prod(x.shape[batch_rank:]) for x in leaves),
        tuple(DTYPES.index(x.dtype.name) for x in leaves),
        tuple(first[slot] for slot in slots),
        tuple(math.prod(x.shape[:batch_rank]) for x in leaves),
        tuple(terms),
    )


def over_devices(total: jax.Array, first: dict[Slot, int], groups: int, axes: tuple[str, ...]) -> jax.Array:
    """(rows, 2) of one device -> (batch..., groups, 2), added over the axes."""
    shares = [slot.share for slot in first]
    if any(share != 1 for share in shares):
        counts = [math.prod(slot.batch) for slot in first]
        total = total * np.repeat(np.array(shares, total.dtype), counts)[:, None]
    total = per_group(total, first, groups)
    return jax.lax.psum(total, axes) if axes else total


def per_group(total: jax.Array, first: dict[Slot, int], groups: int) -> jax.Array:
    """(rows, k) -> (batch..., groups, k): a group may have several slots, or none."""
    batch = jnp.broadcast_shapes(*{slot.batch for slot in first})
    if not batch and [slot.group for slot in first] == list(range(groups)):
        return total
    layers: list[dict[int, np.ndarray]] = []  # a group's first slot in the first layer, its second in the second...
    for slot, start in first.items():
        rows = np.broadcast_to(start + np.arange(math.prod(slot.batch)).reshape(slot.batch), batch)
        layer = next((x for x in layers if slot.group not in x), None)
        if layer is None:
            layers.append(layer := {})
        layer[slot.group] = rows
    nothing = np.full(batch, len(total))  # the row of zeros that is appended
    index = np.array([np.stack([x.get(g, nothing) for g in range(groups)], axis=-1) for x in layers])
    return jnp.concatenate([total, jnp.zeros_like(total, shape=(1, total.shape[1]))])[index].sum(axis=0)


def _stats_over_devices(reals: jax.Array, counts: jax.Array, shares: Shares) -> tuple[jax.Array, jax.Array]:
    """Count each leaf on the first of the devices that hold it, so that counts stay whole numbers."""
    mine = jnp.stack([is_first(idle) for idle in shares.idle])[:, None]
    largest = reals[..., 2:]
    bad = jnp.isnan(largest)  # apart, since an all-reduce may lose a NaN
    whole = jnp.where(mine, jnp.concatenate([counts, bad.astype(counts.dtype)], axis=-1), 0)
    low, high, absolute = jax.lax.psum((*halves(whole), jnp.where(mine, reals[..., :2], 0)), shares.axes)
    whole = joined(low, high)
    largest = jax.lax.pmax(jnp.where(bad, 0, largest), shares.axes)
    largest = jnp.where(whole[..., 2:] > 0, jnp.nan, largest)
    return jnp.concatenate([absolute, largest], axis=-1), whole[..., :2]


def is_first(idle: Sequence[str]) -> jax.Array:
    """Whether this device is the first of those that hold the same part."""
    return functools.reduce(jnp.logical_and, [jax.lax.axis_index(a) == 0 for a in idle], jnp.bool_(True))


def halves(counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The low 16 bits and the rest, to be added up apart: the sum of many int32 would wrap around."""
    return counts & 0xFFFF, counts >> 16


def joined(low: jax.Array, high: jax.Array) -> jax.Array:
    """The sum of counts from the sums of their halves; it saturates."""
    high = high + (low >> 16)
    limit = jnp.iinfo(high.dtype).max
    return jnp.where(high > limit >> 16, limit, high << 16 | (low & 0xFFFF))
