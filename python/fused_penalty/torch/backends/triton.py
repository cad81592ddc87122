"""The launch of the Triton kernel for torch: on the tensors' device, on its current stream, without waiting.

`prepare` is all that the host does before the launch: it finds or makes the tables that hold the addresses, and the
arguments. `enqueue` hands them to Triton.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._core.operations import Op
from ..._core.plan import BOTH, GPU_CHUNK, SLOT_SHIFT, Plan, plan_of_layout
from ..._core.steps import COLUMNS, Step, StepRole
from ..._kernels.triton.kernel import penalty_kernel
from ..._kernels.triton.step_kernel import step_kernel
from ..._kernels.triton.walk import THREADS
from .native import Buffers, Launcher
from .steps import HeldStep
from .steps import launch as launch_step
from .tables import Place, Tables

# What a processor can hold at once, or a little more: each program takes its share of the chunks. The result does not
# depend on it. No autotuning: rows of another shape would be added in another order.
PROGRAMS = 4

# Without contraction to FMA, so that every device rounds alike.
STEP_OPTIONS = {"num_stages": 1, "enable_fp_fusion": False}

TABLES = Tables(
    128,
    "Fresh gradients have a new address in every capture: use add_grad_ with gradients that exist before, or "
    "backend='cuda'",
)


@dataclass(frozen=True)
class Prepared:
    """Everything a launch needs, up to the launch itself; keeps the tensors whose addresses are in its tables."""

    held: Buffers | HeldStep
    programs: int
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    totals: Tensor


def prepare(
    op: Op,
    buffers: Buffers,
    coefficients: Tensor | None,
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
    pairs = totals if coefficients is None else coefficients.to(device)
    ticket = _ticket(place) if place.reuses_memory else _new_ticket(device)
    programs, warps = _geometry(device)
    options = compiled_with(op, _capability(device))
    return Prepared(
        buffers,
        max(1, min(chunks, programs)),
        (layout, addresses, pairs, partials, ticket, totals, chunks, slots, len(plan.sizes)),
        {**constants(op, buffers.anchor is not None, plan.has_small), **options, "num_warps": warps},
        totals,
    )


def constants(op: Op, anchored: bool, small: bool) -> dict[str, Any]:
    """What the kernel is compiled for: the row of the operation, and whether there are leaves of 8 bits. A kernel that
    can read these has 30 registers more, which would cost all other leaves half of the programs on a processor."""
    return {
        "OP": int(op),
        "WRITES": op.writes is not None,
        "READS_OLD": op.reads_old,
        "COLUMNS": len(op.columns),
        "ANCHORED": anchored,
        "SMALL": small,
    }


def compiled_with(op: Op, capability: int | None) -> dict[str, Any]:
    """Without contraction to FMA, so that every device rounds alike. A kernel that also reads the old gradient has two
    or three arrays to load: without a limit Triton 3.7 gives it up to 156 registers on an A100 or H100, so that an SM
    holds one program where it could hold two, or has fewer loads under way. Elsewhere the compiler stays below the
    limit by itself, or would spill."""
    limit = {"maxnreg": 128} if op.reads_old and capability in (80, 90) else {}
    return {"num_stages": 1, "enable_fp_fusion": False, **limit}


@functools.cache
def _capability(device: torch.device) -> int | None:
    """As in sm_80; for NVIDIA's devices only."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def layout_words(plan: Plan) -> np.ndarray:
    """The chunks, two words each, then for each slot the number of its first chunk, and the number of chunks."""
    slot_of_chunk = plan.table[:, 3] >> SLOT_SHIFT
    first = np.searchsorted(slot_of_chunk, np.arange(plan.slot_count + 1))
    return np.concatenate([plan.table.view(np.int64).ravel(), first.astype(np.int64)])


def _new_ticket(device: torch.device) -> Tensor:
    return torch.zeros(1, dtype=torch.int32, device=device)


@functools.cache
def _ticket(place: Place) -> Tensor:
    """A counter that each launch of a stream finds at zero and leaves at zero."""
    return _new_ticket(place.device)


@functools.cache
def _geometry(device: torch.device) -> tuple[int, int]:
    """Programs of a full launch, and warps of a program."""
    if device.type == "cpu":  # the interpreter runs one program after the other
        return 3, 8
    found = torch.get_device_module(device).get_device_properties(device)
    processors = getattr(found, "multi_processor_count", 0) or found.gpu_subslice_count
    return processors * PROGRAMS, THREADS.value // getattr(found, "warp_size", 32)


def enqueue(op: Op, buffers: Buffers, coefficients: Tensor | None, terms: tuple[int, ...] | int) -> Tensor:
    device = buffers.device
    # The interpreter computes with NumPy, which would warn of inf and NaN.
    with np.errstate(all="ignore") if device.type == "cpu" else torch.accelerator.device_index(device.index):
        ready = prepare(op, buffers, coefficients, terms, Place.current(device))
        penalty_kernel[(ready.programs,)](*ready.arguments, **ready.options)
    return ready.totals


def prepare_step(step: Step, held: HeldStep, coefficients: Tensor, place: Place, tables: Tables = TABLES) -> Prepared:
    device = held.device
    layout = held.x.read.layout
    plan = plan_of_layout(layout, BOTH, GPU_CHUNK)
    reads = [read for read in (held.x.read, *held.reads()) if read is not None]
    words = np.concatenate([np.frombuffer(read.address_bytes, np.int64) for read in reads])
    wide = [read.layout != layout for read in reads]
    if any(wide):  # the mark of step_kernel.py
        words[: len(plan.sizes)] |= np.frombuffer(reads[wide.index(True)].layout, np.int64) != np.frombuffer(
            layout, np.int64
        )
    table = tables.find(place, (layout, BOTH), lambda: layout_words(plan))
    addresses = tables.find(place, words.tobytes(), lambda: words)
    chunks, slots = len(plan.table), plan.slot_count
    totals = torch.empty(slots, len(COLUMNS), dtype=torch.float64, device=device)
    partials = torch.empty(chunks * len(COLUMNS), dtype=torch.float64, device=device)
    rows = coefficients.to(device).contiguous()
    ticket = _ticket(place) if place.reuses_memory else _new_ticket(device)
    programs, warps = _geometry(device)
    return Prepared(
        held,
        max(1, min(chunks, programs)),
        (table, addresses, rows, partials, ticket, totals, chunks, slots, len(plan.sizes)),
        {**step_constants(step, held.anchor is not None, any(wide)), **STEP_OPTIONS, "num_warps": warps},
        totals,
    )


def step_constants(step: Step, anchored: bool, wide: bool) -> dict[str, Any]:
    """What the kernel of a step is compiled for. `wide`: leaves of 16 bits with a state of float32, whose walks cost
    nobody else a register."""
    arrays = sum(1 << i for i, role in enumerate(StepRole) if role in step.arrays)
    return {"ARRAYS": arrays, "ANCHORED": anchored, "WIDE": wide, "LOADS": 2}


def enqueue_step(step: Step, held: HeldStep, coefficients: Tensor) -> Tensor:
    device = held.device
    with np.errstate(all="ignore") if device.type == "cpu" else torch.accelerator.device_index(device.index):
        ready = prepare_step(step, held, coefficients, Place.current(device))
        step_kernel[(ready.programs,)](*ready.arguments, **ready.options)
    return ready.totals


LAUNCHER = Launcher(enqueue, functools.partial(launch_step, enqueue_step))
