"""The launch of the CUDA kernels for torch: on the tensors' device, on its current stream, without waiting.

Under `torch.cuda.graph` a replay reads the same addresses again, and so must the chunk table: it is made at the first
call with a list of sizes, and a kernel is loaded at its first call. Make those calls before the capture, as torch asks
of every warm-up.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor

from ... import _cuda
from ..._core.operations import Op
from ..._core.plan import BOTH, GPU_CHUNK, Plan, plan_of_layout
from ..._core.steps import COLUMNS, Step
from .native import Buffers, Launcher
from .steps import HeldStep
from .steps import launch as launch_step
from .tables import Place, Tables

TABLES = Tables(64)


def enqueue(op: Op, buffers: Buffers, coefficients: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    plan = plan_of_layout(buffers.layout, terms, GPU_CHUNK)
    chunks = len(plan.table)
    with torch.cuda.device(buffers.device):
        table = _table(plan, buffers.device, (buffers.layout, terms))
        addresses = [a for read in buffers.arrays for a in read.addresses]
        total = torch.empty(plan.slot_count, len(op.columns), dtype=torch.float64, device=buffers.device)
        scratch = torch.empty(_cuda.scratch_bytes(op, chunks, len(addresses)), dtype=torch.uint8, device=buffers.device)
        pairs = None if coefficients is None else coefficients.to(buffers.device)
        _cuda.launch(
            op,
            buffers.anchor is not None,
            table.data_ptr(),
            chunks,
            addresses,
            len(plan.sizes),
            0 if pairs is None else pairs.data_ptr(),
            scratch.data_ptr(),
            total.data_ptr(),
            plan.slot_count,
            buffers.device.index,
            torch.cuda.current_stream().cuda_stream,
        )
    return total


def enqueue_step(step: Step, held: HeldStep, coefficients: Tensor) -> Tensor:
    layout = held.x.read.layout
    plan = plan_of_layout(layout, BOTH, GPU_CHUNK)
    device = held.device
    anchored = held.anchor is not None
    with torch.cuda.device(device):
        table = _table(plan, device, (layout, BOTH))
        total = torch.empty(plan.slot_count, len(COLUMNS), dtype=torch.float64, device=device)
        room = _cuda.step_scratch_bytes(step, anchored, len(plan.table), len(plan.sizes))
        scratch = torch.empty(-(-room // 8), 1, dtype=torch.float64, device=device)
        rows = coefficients.to(device).contiguous()
        _cuda.step(
            step, plan.table, table.data_ptr(), held.x.read, *held.reads(), rows, scratch, total,
            held.x.read.devices[0], torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return total


def _table(plan: Plan, device: torch.device, key: Hashable) -> Tensor:
    """The chunks in the device's memory."""
    return TABLES.find(Place.current(device), key, lambda: plan.table.view(np.int64).ravel())


LAUNCHER = Launcher(enqueue, functools.partial(launch_step, enqueue_step))
