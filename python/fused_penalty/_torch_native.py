"""What the native torch launchers share: tensors in, addresses to the kernel, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import _cpu
from ._plan import BOTH

SUMS, GRADIENT = 0, 1  # Op in kernels/chunks.h


@dataclass(frozen=True)
class Buffers:
    """The arrays of one launch: leaves, and where the operation has them anchors and outputs."""

    device: torch.device
    x: _cpu.Tensors
    anchor: _cpu.Tensors | None
    out: _cpu.Tensors | None


# (op, arrays, strengths (n, 2) float64 or None, terms of the leaves) -> sums (n, 2) float64
Launch = Callable[[int, Buffers, Tensor | None, tuple[int, ...] | int], Tensor]


@dataclass(frozen=True)
class Launcher:
    """The interface of a torch backend, over the launch of one device type."""

    launch: Launch

    def launch_sums(self, xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Σ|d| and Σd² of each leaf, (n, 2) float64, d = x - anchor."""
        xs, anchors, read = dense(xs, anchors)
        buffers = Buffers(xs[0].device, read, _cpu.Tensors(anchors) if anchors else None, None)
        return self.launch(SUMS, buffers, None, BOTH)

    def launch_gradients(
        self, xs: list[Tensor], anchors: list[Tensor], strengths: Tensor, terms: Sequence[int], live: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """(sums, gradients of the leaves in `live`); strengths (n, 2) are the factors of sign(d) and of d."""
        xs, anchors, read = dense(xs, anchors)
        gradients = [torch.empty_like(xs[i]) for i in live]
        out: list[Any] = [None] * len(xs)
        for i, g in zip(live, gradients, strict=True):
            out[i] = g
        anchor = _cpu.Tensors(anchors) if anchors else None
        buffers = Buffers(xs[0].device, read, anchor, _cpu.Tensors(out, like=read))
        factors = strengths.detach().to(torch.float64).contiguous()
        return self.launch(GRADIENT, buffers, factors, tuple(terms)), gradients


def dense(xs: list[Tensor], anchors: list[Tensor]) -> tuple[list[Tensor], list[Tensor], _cpu.Tensors]:
    """The tensors as dense memory: copied only where there are gaps, overlaps or a lazy negation, or where
    a leaf and its anchor order their elements differently."""
    if any(map(Tensor.is_neg, xs + anchors)):
        xs, anchors = [x.resolve_neg() for x in xs], [a.resolve_neg() for a in anchors]
    read = _cpu.Tensors(xs)
    copied = set(read.irregular)
    copied.update(i for i, (x, a) in enumerate(zip(xs, anchors, strict=False)) if x.stride() != a.stride())
    if copied:
        xs = [x.contiguous() if i in copied else x for i, x in enumerate(xs)]
        anchors = [a.contiguous() if i in copied else a for i, a in enumerate(anchors)]
        read = _cpu.Tensors(xs)
    return xs, anchors, read
