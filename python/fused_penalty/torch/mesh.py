"""DTensor leaves -> the local tensors of this rank, and the one all-reduce that makes their sums global.

Every rank launches on its own shards. An element that several ranks hold (a replicated leaf, a plain tensor beside
DTensors) is counted by one of them, its owner; then the (n, 2) sums are added over all ranks at once. Gradients need
no collective: each rank makes those of the elements that it holds.

The same all-reduce carries a digest of the list, so that ranks which pass different lists all get an error. Its first
part has the same size whatever the list, or such ranks would wait for each other.

Imported only where `torch.distributed.tensor` is loaded already (`params.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from .._core.errors import bad, bad_anchor
from .shares import Ownership, PlacedLeaf, group_of, ownership_of

HEAD = 2048  # rows of the first all-reduce, the digest's two included: 32 KB, which cost little more than its latency

# A graph break under torch.compile: meshes are Python objects, and the digest is read on the host.
_opaque = torch.compiler.disable(reason="fused_penalty: DTensors are taken apart outside the graph")

_agreed: set[Any] = set()  # (ranks, digest) of the lists whose comparison this process has read


@dataclass(frozen=True)
class Shards:
    """The leaves of one call (DTensors where sharded), and the reduction of their local sums."""

    tensors: list[Tensor]
    locals: list[Tensor]  # what this rank holds of them
    paths: Sequence[str]
    ownership: Ownership
    group: dist.ProcessGroup | None
    argument: str = "params"  # by which errors call the leaves

    @_opaque
    def wrap(self, i: int, local: Tensor) -> Tensor:
        """The local gradient of leaf i as a DTensor placed as the leaf."""
        x = self.tensors[i]
        if not isinstance(x, DTensor):
            return local
        place: dict[str, Any] = {"run_check": False, "shape": x.shape, "stride": x.stride()}
        return DTensor.from_local(local, x.device_mesh, x.placements, **place)

    @_opaque
    def local(self, outs: Sequence[Tensor | None]) -> list[Tensor | None]:
        """What this rank holds of `outs`: the leaves themselves, or tensors placed like them."""
        found: list[Tensor | None] = []
        for x, mine, out, path in zip(self.tensors, self.locals, outs, self.paths, strict=True):
            if out is not None and _placed(out) != _placed(x):
                raise bad(
                    ValueError, self.argument,
                    f"its gradient is placed as {_placed(out)} beside a leaf placed as {_placed(x)}",
                    "Write p.grad = p.grad.redistribute(p.device_mesh, p.placements) first", path=path,
                )  # fmt: skip
            found.append(mine if out is x else None if out is None else _local(out))
        return found

    @_opaque
    def all_reduce(self, local: Tensor) -> Tensor:
        """The sums (n, 2) over all ranks, the same bits on each. Differentiable."""
        return _AllReduce.apply(local, self)

    @_opaque
    def all_reduce_stats(self, local: Tensor) -> Tensor:
        """The rows of `Op.STATS` (n, 5) over all ranks. A maximum needs an all-reduce of its own."""
        rows = torch.cat([local[:, :2], local[:, 3:]])
        absolute_square, counts = self.add_up(rows, self.ownership.owned * 2, look=True).chunk(2)
        largest = torch.where(local[:, 2].isnan(), 0.0, local[:, 2])  # MAX need not keep a NaN; Σ|x| does
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.group)
        largest = torch.where(absolute_square[:, 0].isnan(), torch.nan, largest)
        return torch.cat([absolute_square, largest[:, None], counts], dim=1)

    @_opaque
    def all_reduce_steps(self, local: Tensor) -> Tensor:
        """The rows of `_core.steps.COLUMNS` (n, 6) over all ranks, which are all sums: pairs of columns as rows."""
        rows = torch.cat(local.chunk(3, dim=1))
        return torch.cat(self.add_up(rows, self.ownership.owned * 3).chunk(3), dim=1)

    @_opaque
    def agree(self) -> None:
        """Raise on every rank if the ranks pass different lists; called before the first write to a list."""
        if (self.ownership.ranks, self.ownership.digest) not in _agreed:
            self.add_up(_zeros(0, self.locals[0].device), (), look=True)

    def add_up(self, local: Tensor, owned: tuple[bool, ...] | None = None, *, look: bool = False) -> Tensor:
        """The sum over all ranks of the rows that each owns; `look`: compare the lists on the host in any case."""
        # A product with 0 would make the infinite sums of a replica NaN.
        own = torch.where(_column(self.ownership.owned if owned is None else owned, local.device), local, 0.0)
        fits, long = min(len(own), HEAD - 2), len(own) > HEAD - 2
        padding = _zeros(HEAD - 2 - fits, local.device)
        head = torch.cat([own[:fits], padding, _moments(self.ownership.digest, 1, local.device)])
        dist.all_reduce(head, group=self.group)
        same = head[-2:] == _moments(self.ownership.digest, len(self.ownership.ranks), local.device)
        total = self._checked(head[:fits], same.all(), look or long)
        if not long:
            return total
        rest = own[fits:].contiguous()
        dist.all_reduce(rest, group=self.group)
        return torch.cat([total, rest])

    def _checked(self, total: Tensor, same: Tensor, look: bool) -> Tensor:
        """Raise where the ranks' lists differ. On a GPU this makes the host wait, so it is done once per list;
        a difference that arises later makes the sums NaN."""
        key = (self.ownership.ranks, self.ownership.digest)
        if not (_is_free_to_read(same) or look or key not in _agreed):
            return torch.where(same, total, torch.nan)
        if not same:
            sizes = sum(x.numel() for x in self.tensors)
            raise bad(
                ValueError, self.argument,
                f"the ranks {list(self.ownership.ranks)[:8]} do not pass the same list "
                f"(rank {dist.get_rank()}: {len(self.tensors)} leaves of {sizes:,} elements)",
                "Give every rank the same names, shapes, dtypes and placements in the same order, and the same mask",
            )  # fmt: skip
        _agreed.add(key)
        return total


class _AllReduce(torch.autograd.Function):
    """Sums over the ranks. What depends on the total depends on each rank's part of it, so the cotangent, which is
    the same on all ranks, goes back as it is; and the derivative of that is a sum over the ranks again."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, shards: Shards) -> Tensor:
        ctx.shards = shards
        return shards.add_up(local)

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> Any:
        return _Spread.apply(ct, ctx.shards), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ct: Tensor, shards: Shards) -> Tensor:
        ctx.shards = shards
        return ct.clone()

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> Any:
        return _AllReduce.apply(ct, ctx.shards), None


@_opaque
def unwrap(
    leaves: Sequence[Any], anchors: Sequence[Any], paths: Sequence[str], argument: str
) -> tuple[Shards, list[Any], list[Any]]:
    """(the reduction of the sums, local leaves, local anchors) of leaves some of which are DTensors."""
    for x, a, path in zip(leaves, anchors, paths, strict=False):
        if _placed(x) != _placed(a):
            raise bad_anchor(path, f"placed as {_placed(a)} beside a leaf placed as {_placed(x)}")
    placed = tuple(PlacedLeaf(p, x.shape, x.dtype, *_placed(x)) for p, x in zip(paths, leaves, strict=True))
    ownership = ownership_of(placed, dist.get_rank(), dist.get_world_size(), argument)
    group = group_of([x.device_mesh for x in leaves if isinstance(x, DTensor)], ownership.ranks)
    local = [_local(x) for x in leaves]
    shards = Shards(list(leaves), local, paths, ownership, group, argument)
    return shards, local, [_local(a) for a in anchors]


@_opaque
def unwrap_scalar(argument: str, value: DTensor, path: str | None) -> Tensor:
    """The local tensor of a strength or step that every rank of its mesh holds whole. Differentiable."""
    if value.device_mesh.get_coordinate() is None or not all(p.is_replicate() for p in value.placements):
        raise bad(
            ValueError, argument, f"a DTensor placed as {value.placements} that this rank does not hold whole",
            "Call redistribute() on it first, to Replicate() on a mesh that this rank is part of", path=path,
        )  # fmt: skip
    return _local(value)


def _is_free_to_read(x: Tensor) -> bool:
    return x.is_cpu


def _placed(x: Any) -> tuple[Any, Any]:
    return (x.device_mesh, x.placements) if isinstance(x, DTensor) else (None, None)


def _local(x: Any) -> Any:
    """The local tensor; waits for one that is still being redistributed."""
    if not isinstance(x, DTensor):
        return x
    local = x.to_local(grad_placements=x.placements)
    if hasattr(local, "wait"):  # AsyncCollectiveTensor; wait() gives its memory, but no gradient
        return local.clone() if local.requires_grad else local.wait()
    return local


@functools.lru_cache(maxsize=64)
def _column(owned: tuple[bool, ...], device: torch.device) -> Tensor:
    return torch.tensor(owned, dtype=torch.bool, device=device)[:, None]


@functools.lru_cache(maxsize=64)
def _zeros(rows: int, device: torch.device) -> Tensor:
    return torch.zeros(rows, 2, dtype=torch.float64, device=device)


@functools.lru_cache(maxsize=64)
def _moments(digest: tuple[int, int], world: int, device: torch.device) -> Tensor:
    """[d, d²] of both words, times `world`. The sums over ranks are world·d and world·d² for a rank's own d only if
    every rank has it: where the mean is d, the mean of the squares is more than d² unless all are equal."""
    return torch.tensor([[world * d, world * d * d] for d in digest], dtype=torch.float64, device=device)
