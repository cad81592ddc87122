"""The launch of the CUDA kernels for torch: on the tensors' device, on its current stream, without waiting.

Under `torch.cuda.graph` a replay reads the same addresses again, and so must the chunk table: it is made at the first
call with a list of sizes. Make that call before the capture, as torch asks of every warm-up.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ... import _cuda
from ..._core.operations import Op
from ..._core.plan import GPU_CHUNK, plan_of_layout
from .native import Buffers, Launcher
from .tables import Place, Tables

TABLES = Tables(64)


def enqueue(op: Op, buffers: Buffers, coefficients: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    plan = plan_of_layout(buffers.layout, terms, GPU_CHUNK)
    chunks = len(plan.table)
    with torch.cuda.device(buffers.device):
        place = Place.current(buffers.device)
        table = TABLES.find(place, (buffers.layout, terms), lambda: plan.table.view(np.int64).ravel())
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
            torch.cuda.current_stream().cuda_stream,
        )
    return total


LAUNCHER = Launcher(enqueue)
