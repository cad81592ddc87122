"""PartitionSpecs of the leaves -> what each device launches on, and how the sums are put together. No calculus.

    S = Σ_devices Σ_i share_i · S_i(part on the device)       share_i = 1 / (devices that hold the same part of leaf i)

A leaf stays sharded as it is, with two exceptions. A dimension that its axes do not divide evenly is gathered: XLA pads
it, and padding must not be summed. And the batch dimensions of all operands have one sharding, since they
are read together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import PartitionSpec

Entry = Any  # of a PartitionSpec: None, the name of an axis or a tuple of names
Spec = Sequence[Entry]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shares:
    """The share of each leaf's sums that a device contributes, and the mesh axes that the sums are added over.

    `idle`: for each leaf, those of the axes that it is not sharded over.
    """

    of_leaf: tuple[float, ...]
    axes: tuple[str, ...] = ()
    idle: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def alone(cls, leaves: Sequence[Any]) -> Shares:
        """The shares of a device that has all of every leaf."""
        return cls((1.0,) * len(leaves))


@dataclass(frozen=True)
class Shardings:
    """`batch`: the sharding of the batch dimensions; `leaves`: that of each leaf's own dimensions."""

    batch: tuple[Entry, ...]
    leaves: tuple[tuple[Entry, ...], ...]
    shares: Shares

    def operand(self, shape: Shape, own: tuple[Entry, ...] = ()) -> PartitionSpec:
        """The spec of an operand, whose batch dimensions may be 1; own dimensions beyond those of `own` are whole."""
        batch = (entry if n > 1 else None for entry, n in zip(self.batch, shape, strict=False))
        return PartitionSpec(*batch, *own)

    def result(self, own: tuple[Entry, ...] = ()) -> PartitionSpec:
        return PartitionSpec(*self.batch, *own)


def axes_of(*entries: Entry) -> tuple[str, ...]:
    """The names in entries of a spec, in order."""
    names: list[str] = []
    for entry in entries:
        names += entry if isinstance(entry, tuple) else () if entry is None else (entry,)
    return tuple(names)


def shardings_of(
    sizes: Mapping[str, int],
    shapes: Sequence[Shape],
    specs: Sequence[Spec],
    anchor_specs: Sequence[Spec],
    batch_rank: int,
) -> Shardings:
    """The shardings of leaves whose shapes begin with `batch_rank` batch dimensions; `sizes` of the axes of the mesh.

    `anchor_specs` is empty without anchors.
    """
    if anchor_specs:
        specs = [_joined(*pair) for pair in zip(specs, anchor_specs, strict=True)]
    entries = [_even(sizes, shape, spec) for shape, spec in zip(shapes, specs, strict=True)]
    batch: list[Entry] = []
    for d in range(batch_rank):
        sharded = (e[d] for e in entries if e[d] is not None)
        batch.append(next((e for e in sharded if not set(axes_of(e)) & set(axes_of(*batch))), None))
    taken = set(axes_of(*batch))
    own = [tuple(None if taken & set(axes_of(e)) else e for e in leaf[batch_rank:]) for leaf in entries]
    mine = [set(axes_of(*leaf)) for leaf in own]
    used = tuple(name for name in sizes if any(name in axes for axes in mine))
    idle = tuple(tuple(name for name in used if name not in axes) for axes in mine)
    shares = (1 / math.prod(sizes[name] for name in names) for names in idle)
    return Shardings(tuple(batch), tuple(own), Shares(tuple(shares), used, idle))


def _joined(spec: Spec, other: Spec) -> list[Entry]:
    """The sharding of a leaf and its anchor: as the leaf is, and where the leaf is whole, as the anchor is."""
    taken = set(axes_of(*spec))
    return [
        mine if mine is not None or taken & set(axes_of(theirs)) else theirs
        for mine, theirs in itertools.zip_longest(spec, other)
    ]


def _even(sizes: Mapping[str, int], shape: Shape, spec: Spec) -> list[Entry]:
    """The entry of each dimension, None where its axes do not divide it evenly."""
    entries = [*spec, *[None] * (len(shape) - len(spec))]
    parts = [math.prod(sizes[name] for name in axes_of(e)) for e in entries]
    return [e if n % k == 0 else None for e, n, k in zip(entries, shape, parts, strict=True)]
