"""The launch of the CUDA kernels for torch: on the tensors' device, on its current stream, without waiting.

Under `torch.cuda.graph` a replay reads the same addresses again, and so must the chunk table: it is made at the first
call with a list of sizes. Make that call before the capture, as torch asks of every warm-up.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import _cuda
from ._errors import bad
from ._plan import GPU_CHUNK, Op, Plan, plan_of_layout
from ._torch_native import Buffers, Launcher


@functools.lru_cache(maxsize=64)
def _table(plan: Plan, device: torch.device) -> Tensor:
    if torch.cuda.is_current_stream_capturing():
        raise bad(
            RuntimeError, "params", "a list of sizes that was not seen before the capture of a CUDA graph",
            "Call once outside the capture first (a warm-up), with the same shapes, dtypes and strengths",
        )  # fmt: skip
    return torch.from_numpy(plan.table.view("int32")).to(device)


def launch(op: Op, buffers: Buffers, strengths: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    plan = plan_of_layout(buffers.x.layout, terms, GPU_CHUNK)
    with torch.cuda.device(buffers.device):
        table = _table(plan, buffers.device)
        addresses = [a for t in (buffers.x, buffers.anchor, buffers.out) if t is not None for a in t.addresses]
        total = torch.empty(plan.slot_count, op.columns, dtype=torch.float64, device=buffers.device)
        size = _cuda.scratch_bytes(op, len(table), len(addresses))
        scratch = torch.empty(size, dtype=torch.uint8, device=buffers.device)
        factors = None if strengths is None else strengths.to(buffers.device)
        _cuda.launch(
            op,
            buffers.anchor is not None,
            table.data_ptr(),
            len(table),
            addresses,
            len(plan.sizes),
            0 if factors is None else factors.data_ptr(),
            scratch.data_ptr(),
            total.data_ptr(),
            plan.slot_count,
            torch.cuda.current_stream().cuda_stream,
        )
    return total


LAUNCHER = Launcher(launch)
