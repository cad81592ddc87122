"""The loop over devices: one launch on the leaves of each, and their totals in the order of the leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._core.operations import Op
from .params import Selection

T = TypeVar("T")


@dataclass(slots=True)
class Part:
    """The leaves of one device."""

    index: Sequence[int]  # their positions among all
    xs: list[Tensor]
    anchors: list[Tensor]
    terms: tuple[int, ...]
    whole: bool  # whether there is no other device

    def pick(self, values: list[T]) -> list[T]:
        """From a list with a value for each leaf, the values of these leaves."""
        return values if self.whole else [values[i] for i in self.index]

    def rows(self, coefficients: Tensor) -> Tensor:
        """The same for the rows of a tensor, on this device. No index tensor: it would be copied to the device."""
        if self.whole:
            return coefficients
        return torch.stack([coefficients[i] for i in self.index]).to(self.xs[0].device)


def parts(s: Selection) -> list[Part]:
    """The leaves, device by device."""
    terms = s.groups.leaf_terms
    if len(s.by_device) == 1:
        return [Part(s.by_device[0], s.leaves, s.anchors, terms, True)]
    found = []
    for index in s.by_device:
        anchors = [s.anchors[i] for i in index] if s.anchors else []
        found.append(Part(index, [s.leaves[i] for i in index], anchors, tuple(terms[i] for i in index), False))
    return found


def on_each_device(op: Op, s: Selection, launch: Callable[[Part], Tensor]) -> Tensor:
    """Run `launch` on each device's leaves; returns the totals (n, columns) on the first leaf's device, and of sharded
    leaves those over all ranks."""
    if len(s.by_device) == 1:
        (part,) = parts(s)
        total = launch(part)
    else:
        found: list[Any] = [None] * len(s.leaves)
        for part in parts(s):
            for i, row in zip(part.index, launch(part).to(s.leaves[0].device).unbind(), strict=True):
                found[i] = row
        total = torch.stack(found)
    if s.shards is None:
        return total
    return s.shards.all_reduce_stats(total) if op.counts else s.shards.all_reduce(total)
