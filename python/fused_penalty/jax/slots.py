"""The launch on the parts that one device holds: slots, plan, choice of platform.

vmap turns every row of a batched leaf into a slot of the plan, so a batched call is still one launch
and the kernels know nothing about batches. On a mesh, leaves of a group that are held by more or
fewer devices than others have slots of their own, since they count with another share.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import backends
from .._core.backends import JaxBackend, Launched
from .._core.dtypes import DTYPES
from .._core.operations import Op
from .._core.plan import BOTH, Plan
from .shares import Shares

Arrays = Sequence[jax.Array]
Found = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...], tuple[jax.Array, ...]]  # totals, ones, arrays
Slot = tuple[int, float, tuple[int, ...]]  # group, share and batch shape: leaves that add to the same sums


def result_dtype(leaves: Arrays) -> Any:
    """float32, or float64 if any leaf is."""
    return jnp.float64 if any(x.dtype == jnp.float64 for x in leaves) else jnp.float32


@dataclass(frozen=True)
class Sums:
    """The launch for the sums of each group, and an echo."""

    backend: str | None
    of_leaf: tuple[int, ...]
    groups: int
    writes = False
    totals = 1

    def __call__(self, batch_rank: int, shares: Shares, _: Arrays, leaves: Arrays, anchors: Arrays) -> Found:
        leaves, anchors = _align(leaves, anchors, batch_rank)
        slots = [(g, s, x.shape[:batch_rank]) for g, s, x in zip(self.of_leaf, shares.of_leaf, leaves, strict=True)]
        first = _first_rows(slots)
        found = _launch(self.backend, Op.SUMS, batch_rank, slots, first, BOTH, None, leaves, anchors)
        assert found.one is not None
        return (_over_devices(found.totals[0], first, self.groups, shares.axes),), (found.one,), ()


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
    writes = True

    @property
    def totals(self) -> int:
        return int(self.with_sums)

    def __call__(self, batch_rank: int, shares: Shares, tables: Arrays, leaves: Arrays, anchors: Arrays) -> Found:
        (coefficients,) = tables
        batch = jnp.broadcast_shapes(*{x.shape[:batch_rank] for x in (coefficients, *leaves, *anchors)})
        leaves, anchors = ([jnp.broadcast_to(x, batch + x.shape[batch_rank:]) for x in a] for a in (leaves, anchors))
        slots = [(g, s, batch) for g, s in zip(self.of_leaf, shares.of_leaf, strict=True)]
        first = _first_rows(slots)
        rows = coefficients[..., np.array([group for group, _, _ in first]), :]
        rows = jnp.broadcast_to(rows, batch + rows.shape[batch_rank:])
        table = jnp.moveaxis(rows, -2, 0).reshape(-1, 2)  # a group's rows of the batch are adjacent
        terms = [self.terms[g] for g in self.of_leaf]
        found = _launch(
            self.backend, self.op, batch_rank, slots, first, terms, table, leaves, anchors, in_place=self.in_place
        )
        totals = found.totals if self.with_sums else ()
        return tuple(_over_devices(t, first, len(self.terms), shares.axes) for t in totals), (), found.arrays


@dataclass(frozen=True)
class Stats:
    """(Σ|d|, Σd², max|d| (n, 3), zeros and non-finite numbers (n, 2)): a slot for each row of each leaf."""

    backend: str | None
    leaves: int
    writes = False
    totals = 2

    def __call__(self, batch_rank: int, shares: Shares, _: Arrays, leaves: Arrays, anchors: Arrays) -> Found:
        leaves, anchors = _align(leaves, anchors, batch_rank)
        slots = [(i, 1.0, x.shape[:batch_rank]) for i, x in enumerate(leaves)]
        first = _first_rows(slots)
        found = _launch(self.backend, Op.STATS, batch_rank, slots, first, BOTH, None, leaves, anchors)
        reals, counts = (_per_group(part, first, self.leaves) for part in found.totals)
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


def _first_rows(slots: Sequence[Slot]) -> dict[Slot, int]:
    """Where the rows of each distinct slot begin in the sums."""
    first, count = {}, 0
    for slot in sorted(set(slots)):
        first[slot] = count
        count += math.prod(slot[2])
    return first


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
    plan = Plan(
        tuple(math.prod(x.shape[batch_rank:]) for x in leaves),
        tuple(DTYPES.index(x.dtype.name) for x in leaves),
        tuple(first[slot] for slot in slots),
        tuple(math.prod(x.shape[:batch_rank]) for x in leaves),
        (terms,) * len(leaves) if isinstance(terms, int) else tuple(terms),
    )
    dtype = result_dtype(leaves)

    def run(launch: Callable[..., Launched]) -> Callable[..., Launched]:
        return lambda c, *arrays: launch(op, plan, c, arrays, dtype, in_place=in_place)

    return _dispatch(backend, run, coefficients, *leaves, *anchors)


def _over_devices(total: jax.Array, first: dict[Slot, int], groups: int, axes: tuple[str, ...]) -> jax.Array:
    """(rows, 2) of one device -> (batch..., groups, 2), added over the axes."""
    shares = [share for _, share, _ in first]
    if any(share != 1 for share in shares):
        counts = [math.prod(batch) for _, _, batch in first]
        total = total * np.repeat(np.array(shares, total.dtype), counts)[:, None]
    total = _per_group(total, first, groups)
    return jax.lax.psum(total, axes) if axes else total


def _per_group(total: jax.Array, first: dict[Slot, int], groups: int) -> jax.Array:
    """(rows, k) -> (batch..., groups, k): a group may have several slots, or none."""
    batch = jnp.broadcast_shapes(*{shape for _, _, shape in first})
    if not batch and [group for group, _, _ in first] == list(range(groups)):
        return total
    layers: list[dict[int, np.ndarray]] = []  # a group's first slot in the first layer, its second in the second...
    for (group, _, shape), start in first.items():
        rows = np.broadcast_to(start + np.arange(math.prod(shape)).reshape(shape), batch)
        layer = next((x for x in layers if group not in x), None)
        if layer is None:
            layers.append(layer := {})
        layer[group] = rows
    nothing = np.full(batch, len(total))  # the row of zeros that is appended
    index = np.array([np.stack([x.get(g, nothing) for g in range(groups)], axis=-1) for x in layers])
    return jnp.concatenate([total, jnp.zeros_like(total, shape=(1, total.shape[1]))])[index].sum(axis=0)


def _stats_over_devices(reals: jax.Array, counts: jax.Array, shares: Shares) -> tuple[jax.Array, jax.Array]:
    """Count each leaf on the first of the devices that hold it, so that counts stay whole numbers."""
    first = [
        functools.reduce(jnp.logical_and, [jax.lax.axis_index(a) == 0 for a in idle], jnp.bool_(True))
        for idle in shares.idle
    ]
    mine = jnp.stack(first)[:, None]
    largest = reals[..., 2:]
    bad = jnp.isnan(largest)  # apart, since an all-reduce may lose a NaN
    whole = jnp.where(mine, jnp.concatenate([counts, bad.astype(counts.dtype)], axis=-1), 0)
    # In halves, so that the sum of many int32 cannot wrap around; it saturates.
    low, high, absolute = jax.lax.psum((whole & 0xFFFF, whole >> 16, jnp.where(mine, reals[..., :2], 0)), shares.axes)
    high = high + (low >> 16)
    limit = jnp.iinfo(counts.dtype).max
    whole = jnp.where(high > limit >> 16, limit, high << 16 | (low & 0xFFFF))
    largest = jax.lax.pmax(jnp.where(bad, 0, largest), shares.axes)
    largest = jnp.where(whole[..., 2:] > 0, jnp.nan, largest)
    return jnp.concatenate([absolute, largest], axis=-1), whole[..., :2]


def _dispatch(backend: str | None, run: Callable[..., Any], *operands: Any) -> Any:
    """Lower to the launcher of the platform that is compiled for."""
    branches: dict[str, Callable[..., Any]] = {}
    for row in backends.rows("jax", backend):
        launcher: JaxBackend = row.launcher()
        function = run(launcher.launch)
        for platform in row.devices:
            branches.setdefault("default" if platform == "any" else platform, function)
    if list(branches) == ["default"]:
        return branches["default"](*operands)
    return jax.lax.platform_dependent(*operands, **branches)
