"""Which ranks together hold a list of DTensors, which of them counts each leaf, and the digest of the list."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from .._core.errors import bad

DIGEST_BITS = 18  # world · digest² stays an exact float64 up to 2^17 ranks


class PlacedLeaf(NamedTuple):
    """A leaf as all ranks see it; mesh and placements are None for a plain tensor."""

    path: str
    shape: torch.Size
    dtype: torch.dtype
    mesh: DeviceMesh | None
    placements: tuple[Any, ...] | None


class Ownership(NamedTuple):
    """Which ranks hold the leaves, and which of the leaves this rank counts."""

    ranks: tuple[int, ...]  # that hold the leaves together
    owned: tuple[bool, ...]  # leaves that this rank counts
    digest: tuple[int, int]


@functools.lru_cache(maxsize=64)
def ownership_of(leaves: tuple[PlacedLeaf, ...], rank: int, world: int, argument: str = "params") -> Ownership:
    """Which ranks hold the leaves, and which leaves this rank counts.

    The ranks are those of the mesh that contains all others, or all ranks if none does. A leaf on a smaller mesh
    exists in several copies, one for each mesh like it within the larger one; the copy with the first rank counts.
    """
    members = {x.mesh: _ranks(x, rank, argument) for x in leaves if x.mesh is not None}
    ranks = max(members.values(), key=len)
    if not all(ranks.issuperset(m) for m in members.values()):
        ranks = frozenset(range(world))
    first = min(ranks)
    owned = tuple(rank == first if x.mesh is None else first in members[x.mesh] and _leads(x) for x in leaves)
    listed = [(x.path, x.shape, x.dtype, x.mesh and x.mesh.shape, x.placements) for x in leaves]
    word = int.from_bytes(hashlib.blake2b(repr(listed).encode(), digest_size=8).digest(), "little")
    low = (1 << DIGEST_BITS) - 1
    return Ownership(tuple(sorted(ranks)), owned, (word & low, word >> DIGEST_BITS & low))


def _ranks(leaf: PlacedLeaf, rank: int, argument: str) -> frozenset[int]:
    """The ranks of the leaf's mesh, checked."""
    assert leaf.mesh is not None
    assert leaf.placements is not None
    if any(p.is_partial() for p in leaf.placements):
        raise bad(
            ValueError, argument, f"placed as {leaf.placements}: |x| of a sum is not the sum of the parts",
            "Call redistribute() on it first, to Replicate() or Shard(dim)", path=leaf.path,
        )  # fmt: skip
    ranks = frozenset(leaf.mesh.mesh.flatten().tolist())
    if rank not in ranks:
        raise bad(
            ValueError, argument, f"its mesh has the ranks {sorted(ranks)[:8]}, and this is rank {rank}",
            "Give each rank the leaves of meshes that it is part of", path=leaf.path,
        )  # fmt: skip
    return ranks


def _leads(leaf: PlacedLeaf) -> bool:
    """True on one of the ranks that hold the same elements: the first along every dimension that repeats them."""
    assert leaf.mesh is not None
    assert leaf.placements is not None
    coordinate = leaf.mesh.get_coordinate()
    assert coordinate is not None
    return all(c == 0 for c, p in zip(coordinate, leaf.placements, strict=True) if p.is_replicate())


def group_of(meshes: Sequence[DeviceMesh], ranks: tuple[int, ...]) -> dist.ProcessGroup | None:
    if len(ranks) == dist.get_world_size():
        return dist.group.WORLD
    for mesh in meshes:
        if mesh.ndim == 1 and mesh.size() == len(ranks):
            return mesh.get_group()
    return _new_group(dist.group.WORLD, ranks)


@functools.lru_cache(maxsize=64)
def _new_group(world: dist.ProcessGroup | None, ranks: tuple[int, ...]) -> dist.ProcessGroup:
    """A group over a mesh of several dimensions that is not the whole world: made at its first call."""
    return dist.new_group(list(ranks), use_local_synchronization=True)
