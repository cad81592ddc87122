"""The launch of the Triton kernel for torch: on the tensors' device, on its current stream, without waiting.

`prepare` is all that the host does before the launch: it finds or makes the tables that hold the addresses, and the
arguments. `launch` hands them to Triton.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._core.operations import Op
from ..._core.plan import GPU_CHUNK, Plan, plan_of_layout
from ..._kernels.triton.kernel import penalty_kernel
from ..._kernels.triton.walk import THREADS
from .native import Buffers, Launcher
from .tables import Place, Tables

# What a processor can hold at once, or a little more: each program takes its share of the chunks. The result does not
# depend on it. There is no autotuning: another shape of a row would add in another order.
PROGRAMS = 4

TABLES = Tables(
    128,
    "Fresh gradients have a new address in every capture: use add_grad_ with gradients that exist before, or "
    "backend='cuda'",
)


@dataclass(frozen=True)
class Prepared:
    """A launch without the launch. It holds the tensors whose addresses its tables hold."""

    buffers: Buffers
    programs: int
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    totals: Tensor


def prepare(
    op: Op,
    buffers: Buffers,
    strengths: Tensor | None,
    terms: tuple[int, ...] | int,
    place: Place,
    tables: Tables = TABLES,
) -> Prepared:
    device = buffers.device
    plan = plan_of_layout(buffers.layout, terms, GPU_CHUNK)
    layout = tables.find(place, (buffers.layout, terms), lambda: layout_words(plan))
    key = b"".join(read.address_bytes for read in buffers.arrays)
    addresses = tables.find(place, key, lambda: np.frombuffer(key, np.int64))
    chunks, slots = len(plan.table), plan.slot_count
    totals = torch.empty(slots, len(op.columns), dtype=torch.float64, device=device)
    partials = torch.empty(chunks * len(op.columns), dtype=torch.float64, device=device)
    factors = totals if strengths is None else strengths.to(device)
    ticket = _ticket(place) if place.reuses_memory else _new_ticket(device)
    programs, warps = _geometry(device)
    options = compiled_with(op, buffers.anchor is not None, _capability(device))
    return Prepared(
        buffers,
        max(1, min(chunks, programs)),
        (layout, addresses, factors, partials, ticket, totals, chunks, slots, len(plan.sizes)),
        {"OP": int(op), "ANCHORED": buffers.anchor is not None, **options, "num_warps": warps},
        totals,
    )


def compiled_with(op: Op, anchored: bool, capability: int | None) -> dict[str, Any]:
    """Without contraction to FMA, so that every device rounds alike. add_gradient has two or three arrays to load: left
    alone, Triton 3.7 gives it 156 registers on an A100, and on an H100 with an anchor, and an SM then holds one program
    where it could hold two. The limit is for these: elsewhere the compiler keeps to it by itself, or would spill."""
    greedy = op is Op.ADD_GRADIENT and (capability == 80 or (capability == 90 and anchored))
    limit = {"maxnreg": 128} if greedy else {}
    return {"num_stages": 1, "enable_fp_fusion": False, **limit}


@functools.cache
def _capability(device: torch.device) -> int | None:
    """As in sm_80; of NVIDIA's devices alone."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def layout_words(plan: Plan) -> np.ndarray:
    """The chunks, two words each, then for each slot the number of its first chunk, and the number of chunks."""
    slot_of_chunk = plan.table[:, 3] >> 4
    first = np.searchsorted(slot_of_chunk, np.arange(plan.slot_count + 1))
    return np.concatenate([plan.table.view(np.int64).ravel(), first.astype(np.int64)])


def _new_ticket(device: torch.device) -> Tensor:
    return torch.zeros(1, dtype=torch.int32, device=device)


@functools.cache
def _ticket(place: Place) -> Tensor:
    """Each launch of a stream finds it at zero and leaves it there."""
    return _new_ticket(place.device)


@functools.cache
def _geometry(device: torch.device) -> tuple[int, int]:
    """Programs of a full launch, and warps of a program."""
    if device.type == "cpu":  # the interpreter runs one program after the other
        return 3, 8
    found = torch.get_device_module(device).get_device_properties(device)
    processors = getattr(found, "multi_processor_count", 0) or found.gpu_subslice_count
    return processors * PROGRAMS, THREADS.value // getattr(found, "warp_size", 32)


def launch(op: Op, buffers: Buffers, strengths: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    device = buffers.device
    # The interpreter computes with NumPy, which would warn of inf and NaN.
    with np.errstate(all="ignore") if device.type == "cpu" else torch.accelerator.device_index(device.index):
        ready = prepare(op, buffers, strengths, terms, Place.current(device))
        penalty_kernel[(ready.programs,)](*ready.arguments, **ready.options)
    return ready.totals


LAUNCHER = Launcher(launch)
