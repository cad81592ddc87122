"""The launch of the CPU kernels for torch."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ... import _cpu
from ..._core.operations import Op
from ..._core.plan import BOTH, plan_of_layout
from ..._core.steps import COLUMNS, Step
from .native import Buffers, Launcher
from .steps import HeldStep
from .steps import launch as launch_step


def enqueue(op: Op, buffers: Buffers, coefficients: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    plan = plan_of_layout(buffers.layout, terms)
    total = torch.empty(plan.slot_count, len(op.columns), dtype=torch.float64, device=buffers.device)
    anchor, out = (None if held is None else held.read for held in (buffers.anchor, buffers.out))
    _cpu.launch(op, plan.table, buffers.x.read, anchor, out, coefficients, total, torch.get_num_threads())
    return total


def enqueue_step(step: Step, held: HeldStep, coefficients: Tensor) -> Tensor:
    plan = plan_of_layout(held.x.read.layout, BOTH)
    total = torch.empty(plan.slot_count, len(COLUMNS), dtype=torch.float64, device="cpu")
    rows, threads = coefficients.contiguous(), torch.get_num_threads()
    _cpu.step(step, plan.table, held.x.read, *held.reads(), rows, total, threads)
    return total


LAUNCHER = Launcher(enqueue, functools.partial(launch_step, enqueue_step))
