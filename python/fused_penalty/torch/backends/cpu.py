"""The launch of the CPU kernels for torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _cpu
from ..._core.plan import Op, plan_of_layout
from .native import Buffers, Launcher


def launch(op: Op, buffers: Buffers, strengths: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    plan = plan_of_layout(buffers.x.layout, terms)
    total = torch.empty(plan.slot_count, op.columns, dtype=torch.float64, device="cpu")
    address = 0 if strengths is None else strengths.data_ptr()
    slots, threads = plan.slot_count, torch.get_num_threads()
    arrays = (buffers.x, buffers.anchor, buffers.out)
    _cpu.launch(op, plan.table, *arrays, address, total.data_ptr(), slots, threads)
    return total


LAUNCHER = Launcher(launch)
