"""What the native torch launchers share: tensors in, addresses to the kernel, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import _cpu
from ..._core.operations import Op
from ..._core.plan import BOTH


@dataclass(frozen=True)
class Buffers:
    """The arrays of one launch: leaves, and where the operation has them anchors and outputs."""

    device: torch.device
    x: _cpu.Tensors
    anchor: _cpu.Tensors | None
    out: _cpu.Tensors | None


# (op, arrays, strengths (n, 2) float64 or None, terms of the leaves) -> totals (n, len(op.columns)) float64
Launch = Callable[[Op, Buffers, Tensor | None, tuple[int, ...] | int], Tensor]


@dataclass(frozen=True)
class Launcher:
    """The interface of a torch backend, over the launch of one device type."""

    launch: Launch

    def launch_sums(self, xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Σ|d| and Σd² of each leaf, (n, 2) float64, d = x - anchor."""
        return self._read(Op.SUMS, xs, anchors)

    def launch_stats(self, xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Σ|d|, Σd², max|d|, zeros and non-finite numbers of each leaf, (n, 5) float64."""
        return self._read(Op.STATS, xs, anchors)

    def _read(self, op: Op, xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
        xs, read, anchor = dense(xs, anchors)
        return self.launch(op, Buffers(xs[0].device, read, anchor, None), None, BOTH)

    def launch_gradients(
        self, xs: list[Tensor], anchors: list[Tensor], strengths: Tensor, terms: Sequence[int], live: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """(sums, gradients of the leaves in `live`); strengths (n, 2) are the factors of sign(d) and of d."""
        xs, read, anchor = dense(xs, anchors)
        gradients = [torch.empty_like(xs[i]) for i in live]
        out: list[Any] = [None] * len(xs)
        for i, g in zip(live, gradients, strict=True):
            out[i] = g
        buffers = Buffers(xs[0].device, read, anchor, _cpu.Tensors(out, like=read))
        return self.launch(Op.GRADIENT, buffers, _factors(strengths), tuple(terms)), gradients

    def launch_update(
        self,
        op: Op,
        xs: list[Tensor],
        anchors: list[Tensor],
        outs: list[Tensor | None],
        strengths: Tensor,
        terms: Sequence[int],
    ) -> Tensor:
        """In place: writes each of `outs` (a gradient, or the leaf itself) and returns the sums of what it read.

        None: that leaf is only read. An output whose elements lie otherwise than its leaf's goes through a copy.
        """
        leaves, read, anchor = dense(xs, anchors)
        out = _cpu.Tensors(outs, like=read)
        if op is Op.ADD_GRADIENT:
            odd = _differing(leaves, read, outs, out)
        else:  # the leaf itself is written
            odd = {i for i, (x, leaf) in enumerate(zip(xs, leaves, strict=True)) if x is not leaf}
        targets = list(outs)
        for i in odd:
            if (old := outs[i]) is not None:
                targets[i] = torch.empty_like(leaves[i]).copy_(old) if op is Op.ADD_GRADIENT else leaves[i]
        if odd:
            out = _cpu.Tensors(targets, like=read)
        buffers = Buffers(xs[0].device, read, anchor, out)
        total = self.launch(op, buffers, _factors(strengths), tuple(terms))
        for i in odd:
            old, target = outs[i], targets[i]
            if old is not None and target is not None:
                old.copy_(target)
        return total


def _factors(strengths: Tensor) -> Tensor:
    return strengths.detach().to(torch.float64).contiguous()


def dense(xs: list[Tensor], anchors: list[Tensor]) -> tuple[list[Tensor], _cpu.Tensors, _cpu.Tensors | None]:
    """The leaves as dense memory, read, and their anchors: copied only where there are gaps, overlaps or a lazy
    negation, or where a leaf and its anchor order their elements differently."""
    read, anchor = _cpu.Tensors(xs), _cpu.Tensors(anchors) if anchors else None
    if _negated(xs, read) or (anchor is not None and _negated(anchors, anchor)):
        return dense([x.resolve_neg() for x in xs], [a.resolve_neg() for a in anchors])
    odd = set(read.irregular)
    if anchor is not None:
        odd |= _differing(xs, read, anchors, anchor)
    if not odd:
        return xs, read, anchor
    xs = [x.contiguous() if i in odd else x for i, x in enumerate(xs)]
    anchors = [a.contiguous() if i in odd else a for i, a in enumerate(anchors)]
    return xs, _cpu.Tensors(xs), _cpu.Tensors(anchors) if anchors else None


def _negated(tensors: Sequence[Tensor | None], read: _cpu.Tensors) -> list[int]:
    """Where the bits are those of -x: imaginary parts of conjugates. They have gaps, or a single element, so that not
    all of 2,000 tensors have to be asked."""
    candidates = {*read.irregular, *np.flatnonzero(np.frombuffer(read.layout, np.uint64) >> np.uint64(2) == 1).tolist()}
    return [i for i in candidates if (t := tensors[i]) is not None and t.is_neg()]


def _differing(
    xs: Sequence[Tensor], x_read: _cpu.Tensors, ys: Sequence[Tensor | None], y_read: _cpu.Tensors
) -> set[int]:
    """Where y has gaps, other bits than it shows, or its elements in another order than x has."""
    permuted = {*x_read.permuted, *y_read.permuted}
    found = {*y_read.irregular, *_negated(ys, y_read)}
    for i in permuted:
        y = ys[i]
        if y is not None and xs[i].stride() != y.stride():
            found.add(i)
    return found
