"""The launcher of the CPU kernels for torch tensors: addresses in, tensors out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _cpu
from ._plan import BOTH, plan_of_layout


def launch_sums(xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
    """Σ|d| and Σd² of each leaf, (n, 2) float64, d = x - anchor."""
    xs, anchors, buffers = _read(xs, anchors)
    return _launch(_cpu.Op.sums, buffers, _cpu.Tensors(anchors) if anchors else None, None, None, BOTH)


def launch_gradients(
    xs: list[Tensor], anchors: list[Tensor], strengths: Tensor, terms: Sequence[int], live: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """(sums, gradients of the leaves in `live`); strengths (n, 2) are the factors of sign(d) and of d."""
    xs, anchors, buffers = _read(xs, anchors)
    gradients = [torch.empty_like(xs[i]) for i in live]
    out: list[Tensor | None] = [None] * len(xs)
    for i, g in zip(live, gradients, strict=True):
        out[i] = g
    total = _launch(
        _cpu.Op.gradient,
        buffers,
        _cpu.Tensors(anchors) if anchors else None,
        _cpu.Tensors(out, like=buffers),
        strengths.detach().to(torch.float64).contiguous(),
        tuple(terms),
    )
    return total, gradients


def _read(xs: list[Tensor], anchors: list[Tensor]) -> tuple[list[Tensor], list[Tensor], _cpu.Tensors]:
    """The tensors as dense memory: copied only where there are gaps, overlaps or a lazy negation, or where
    a leaf and its anchor order their elements differently."""
    if any(map(Tensor.is_neg, xs + anchors)):
        xs, anchors = [x.resolve_neg() for x in xs], [a.resolve_neg() for a in anchors]
    buffers = _cpu.Tensors(xs)
    copied = set(buffers.irregular)
    copied.update(i for i, (x, a) in enumerate(zip(xs, anchors, strict=False)) if x.stride() != a.stride())
    if copied:
        xs = [x.contiguous() if i in copied else x for i, x in enumerate(xs)]
        anchors = [a.contiguous() if i in copied else a for i, a in enumerate(anchors)]
        buffers = _cpu.Tensors(xs)
    return xs, anchors, buffers


def _launch(
    op: _cpu.Op,
    x: _cpu.Tensors,
    anchor: _cpu.Tensors | None,
    out: _cpu.Tensors | None,
    strengths: Tensor | None,
    terms: tuple[int, ...] | int,
) -> Tensor:
    plan = plan_of_layout(x.layout, terms)
    total = torch.empty(plan.slot_count, 2, dtype=torch.float64)
    address = 0 if strengths is None else strengths.data_ptr()
    slots, threads = plan.slot_count, torch.get_num_threads()
    _cpu.launch(op, plan.table, x, anchor, out, address, total.data_ptr(), slots, threads)
    return total
