"""The launch of the CPU kernels for torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _cpu
from ..._core.operations import Op
from ..._core.plan import plan_of_layout
from .native import Buffers, Launcher


def enqueue(op: Op, buffers: Buffers, coefficients: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    plan = plan_of_layout(buffers.layout, terms)
    total = torch.empty(plan.slot_count, len(op.columns), dtype=torch.float64, device=buffers.device)
    anchor, out = (None if held is None else held.read for held in (buffers.anchor, buffers.out))
    _cpu.launch(op, plan.table, buffers.x.read, anchor, out, coefficients, total, torch.get_num_threads())
    return total


LAUNCHER = Launcher(enqueue)
