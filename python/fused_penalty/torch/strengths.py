"""What the verbs share: strengths as tensors, one launch a device, and the penalty from sums and strengths."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._core import backends
from .._core.rules import first_matches
from . import calculus as core
from .params import Selection, is_plain
from .scalars import as_double

# Marks the function itself: names and globs are static, and torch.compile would warn of the cache in fnmatch.
torch.compiler.assume_constant_result(first_matches)


@torch.compiler.assume_constant_result
def requested(backend: str | None) -> str | None:
    return backends.requested("torch", backend)


def take(s: Selection, index: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    return [s.leaves[i] for i in index], [s.anchors[i] for i in index] if s.anchors else []


def gather(s: Selection, parts: list[Tensor], *, stats: bool = False) -> Tensor:
    """The rows of one launch a device, in the order of the leaves, on the first leaf's device; of sharded leaves,
    over all ranks. The rows are sums, or those of `Op.STATS`."""
    total = parts[0]
    if len(parts) > 1:
        rows: list[Any] = [None] * len(s.leaves)
        for index, part in zip(s.by_device, parts, strict=True):
            for i, row in zip(index, part.to(s.leaves[0].device).unbind(), strict=True):
                rows[i] = row
        total = torch.stack(rows)
    if s.shards is None:
        return total
    return s.shards.all_reduce_stats(total) if stats else s.shards.all_reduce(total)


@functools.lru_cache(maxsize=64)
def _static(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float64, device=device)


def per_leaf(s: Selection, k: int) -> Tensor:
    """The strengths l1 (k = 0) or l2 (k = 1) of the leaves, (n,) float64."""
    values = (s.groups.l1, s.groups.l2)[k]
    device = s.leaves[0].device
    if all(isinstance(v, float) for v in values):
        if len(set(values)) == 1:
            return torch.full((len(s.leaves),), values[0], dtype=torch.float64, device=device)
        each = tuple(values[g] for g in s.groups.of_leaf)
        if torch.jit.is_tracing():  # which warns of torch.tensor
            return torch.stack([as_double(v, device) for v in each])
        # A copy to the device is not allowed in the capture of a CUDA graph: the warm-up has made it.
        return _static(each, device) if is_plain() else torch.tensor(each, dtype=torch.float64, device=device)
    as_tensors = [as_double(v, device) for v in values]
    if len(values) == 1:
        return as_tensors[0].expand(len(s.leaves))
    return torch.stack([as_tensors[g] for g in s.groups.of_leaf])


def combine(s: Selection, total: Tensor) -> Tensor:
    """Σ_i ( l1_i·S_i0 + l2_i·S_i1 ) in float64; a zero strength removes its term even if S is not finite."""
    value = total.new_zeros(())
    for k, strengths in enumerate((s.groups.l1, s.groups.l2)):
        if len(strengths) == 1 and isinstance(strengths[0], float):
            if strengths[0] != 0:
                value = value + strengths[0] * total[:, k].sum()
        else:
            value = value + core.scale(per_leaf(s, k), total[:, k]).sum()
    return value
