"""Leaves in groups -> one launch -> sums for each group. Batching and the choice of platform; no calculus.

vmap turns every row of a batched leaf into a slot of the plan, so a batched call is still one launch
and the kernels know nothing about batches. On a mesh, the leaves of a group that fewer devices share have slots
of their own, since they count with another share; `_jax_mesh` decides what each device launches on.
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
from jax.custom_batching import custom_vmap

from . import _backends
from . import _jax_mesh as mesh
from ._jax_layout import Shares
from ._plan import BOTH, DTYPES, Plan

Arrays = Sequence[jax.Array]
Slot = tuple[int, float, tuple[int, ...]]  # group, share and batch shape: leaves that add to the same sums


def result_dtype(leaves: Arrays) -> Any:
    """float32, or float64 if any leaf is."""
    return jnp.float64 if any(x.dtype == jnp.float64 for x in leaves) else jnp.float32


def sums(
    backend: str | None, of_leaf: tuple[int, ...], leaves: Arrays, anchors: Arrays
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """(sums (groups, 2), ones). An echo is a scalar 1 that exists only once the leaves have been read.

    There is one echo, and one launch, for each of `_jax_mesh.classes`; outside a user's `shard_map` that is one.
    """
    groups = 1 + max(of_leaf)
    total: Any = 0.0
    ones: list[jax.Array] = []
    for members in _members(leaves, anchors):
        call = Sums(backend, tuple(of_leaf[i] for i in members), groups)
        part, found, _ = _batched(call, 0)((), *_pick(members, leaves, anchors))
        total = total + part if ones else part
        ones += found
    return total, tuple(ones)


def gradients(
    backend: str | None,
    of_leaf: tuple[int, ...],
    terms: tuple[int, ...],
    strengths: jax.Array,
    leaves: Arrays,
    anchors: Arrays,
) -> tuple[jax.Array, ...]:
    """(sums (groups, 2), gradient...); strengths (groups, 2) are the factors of sign(d) and of d."""
    total: Any = None
    written: dict[int, jax.Array] = {}
    for members in _members(leaves, anchors):
        call = Gradients(backend, tuple(of_leaf[i] for i in members), terms)
        part, _, found = _batched(call, 0)((strengths,), *_pick(members, leaves, anchors))
        total = part if total is None else total + part
        written.update(zip(members, found, strict=True))
    return total, *(written[i] for i in range(len(leaves)))


def _members(leaves: Arrays, anchors: Arrays) -> list[list[int]]:
    """The leaves of each class."""
    of_leaf = mesh.classes(leaves, anchors)
    return [[i for i, c in enumerate(of_leaf) if c == k] for k in range(1 + max(of_leaf))]


def _pick(members: Sequence[int], leaves: Arrays, anchors: Arrays) -> list[tuple[jax.Array, ...]]:
    return [tuple(arrays[i] for i in members) if arrays else () for arrays in (leaves, anchors)]


@functools.cache
def _batched(call: mesh.Local, batch_rank: int) -> Callable[..., Any]:
    """The call on arrays that begin with `batch_rank` batch dimensions, each 1 or the batch size."""

    @custom_vmap
    def run(tables: Arrays, leaves: Arrays, anchors: Arrays) -> Any:
        return mesh.spread(call, batch_rank, tables, leaves, anchors)

    @run.def_vmap
    def _(axis_size: int, in_batched: Any, *operands: Any) -> Any:
        rows = jax.tree.map(lambda x, b: x if b else x[None], operands, tuple(in_batched))
        total, ones, arrays = _batched(call, batch_rank + 1)(*rows)
        return (total, ones, arrays), (True, tuple(False for _ in ones), tuple(True for _ in arrays))

    return run


@dataclass(frozen=True)
class Sums:
    """Sums and an echo, of the parts on one device."""

    backend: str | None
    of_leaf: tuple[int, ...]
    groups: int
    writes = False

    def __call__(
        self, batch_rank: int, shares: Shares, tables: Arrays, leaves: Arrays, anchors: Arrays
    ) -> tuple[jax.Array, Arrays, Arrays]:
        if anchors:  # a leaf and its anchor are read together: give both the rows of either
            leaves, anchors = _align(leaves, anchors, batch_rank)
        slots = [(g, s, x.shape[:batch_rank]) for g, s, x in zip(self.of_leaf, shares.of_leaf, leaves, strict=True)]
        first = _first_rows(slots)
        plan = _plan(leaves, batch_rank, [first[s] for s in slots], [BOTH] * len(leaves))
        total, one = _dispatch(
            self.backend, "slot_sums", *leaves, *anchors, plan=plan, dtype=result_dtype(leaves), lead=0
        )
        return _over_devices(total, first, self.groups, shares.axes), (one,), ()


@dataclass(frozen=True)
class Gradients:
    """Sums and gradients. Every array gets the whole batch, since every gradient has it."""

    backend: str | None
    of_leaf: tuple[int, ...]
    terms: tuple[int, ...]
    writes = True

    def __call__(
        self, batch_rank: int, shares: Shares, tables: Arrays, leaves: Arrays, anchors: Arrays
    ) -> tuple[jax.Array, Arrays, Arrays]:
        (strengths,) = tables
        batch = jnp.broadcast_shapes(*{x.shape[:batch_rank] for x in (strengths, *leaves, *anchors)})
        leaves, anchors = ([jnp.broadcast_to(x, batch + x.shape[batch_rank:]) for x in a] for a in (leaves, anchors))
        slots = [(g, s, batch) for g, s in zip(self.of_leaf, shares.of_leaf, strict=True)]
        first = _first_rows(slots)
        rows = strengths[..., np.array([group for group, _, _ in first]), :]
        rows = jnp.broadcast_to(rows, batch + rows.shape[batch_rank:])
        plan = _plan(leaves, batch_rank, [first[s] for s in slots], [self.terms[g] for g in self.of_leaf])
        total, *found = _dispatch(
            self.backend, "slot_gradients", jnp.moveaxis(rows, -2, 0).reshape(-1, 2), *leaves, *anchors,
            plan=plan, dtype=result_dtype(leaves), lead=1,
        )  # fmt: skip
        return _over_devices(total, first, len(self.terms), shares.axes), (), tuple(found)


def _align(leaves: Arrays, anchors: Arrays, batch_rank: int) -> tuple[Arrays, Arrays]:
    pairs = []
    for x, a in zip(leaves, anchors, strict=True):
        batch = jnp.broadcast_shapes(x.shape[:batch_rank], a.shape[:batch_rank])
        pairs.append([jnp.broadcast_to(v, batch + v.shape[batch_rank:]) for v in (x, a)])
    return [x for x, _ in pairs], [a for _, a in pairs]


def _plan(leaves: Arrays, batch_rank: int, slots: Sequence[int], terms: Sequence[int]) -> Plan:
    return Plan(
        tuple(math.prod(x.shape[batch_rank:]) for x in leaves),
        tuple(DTYPES.index(x.dtype.name) for x in leaves),
        tuple(slots),
        tuple(math.prod(x.shape[:batch_rank]) for x in leaves),
        tuple(terms),
    )


def _first_rows(slots: Sequence[Slot]) -> dict[Slot, int]:
    """Where the rows of each distinct slot begin in the sums."""
    first, count = {}, 0
    for slot in sorted(set(slots)):
        first[slot] = count
        count += math.prod(slot[2])
    return first


def _over_devices(total: jax.Array, first: dict[Slot, int], groups: int, axes: tuple[str, ...]) -> jax.Array:
    """(rows, 2) of one device -> (batch..., groups, 2), added over the axes."""
    shares = [share for _, share, _ in first]
    if any(share != 1 for share in shares):
        counts = [math.prod(batch) for _, _, batch in first]
        total = total * np.repeat(np.array(shares, total.dtype), counts)[:, None]
    total = _per_group(total, first, groups)
    return jax.lax.psum(total, axes) if axes else total


def _per_group(total: jax.Array, first: dict[Slot, int], groups: int) -> jax.Array:
    """(rows, 2) -> (batch..., groups, 2): a group may have several slots, or none."""
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
    return jnp.concatenate([total, jnp.zeros((1, total.shape[1]), total.dtype)])[index].sum(axis=0)


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
