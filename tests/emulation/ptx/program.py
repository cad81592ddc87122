"""A case through the PTX that the module carries, run by ptxemu."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from fused_penalty._core.operations import Op
from tests.emulation.harness import IN_PLACE, WRITES, Case, Result
from tests.emulation.images import make
from tests.emulation.ptx import emulator as ptxemu

THREADS = 256


class Arguments(ctypes.Structure):
    """`Arguments<480>` of kernels/cuda/kernel.h."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("chunks", "strengths", "partials", "ticket", "totals", "one", "more")),
        *((name, ctypes.c_int32) for name in ("chunk_count", "slots", "leaves")),
        ("wide_strengths", ctypes.c_bool),
        ("wide_totals", ctypes.c_bool),
        ("addresses", ctypes.c_uint64 * 480),
    ]


def read_ptx(arch: str, ops: Sequence[Op]) -> ptxemu.Module:
    """The images of these operations that the module carries for launches with few addresses; `arch`: 70 or 80."""
    files = make.read_archive()
    wanted = [k.name for k in make.kernels() if k.macros.get("OP") in {f"Op::k{name_of(op)}" for op in ops}]
    found = [files.get(f"{name}.{arch}.ptx", files[f"{name}.70.ptx"]) for name in wanted if name.endswith("_few")]
    return ptxemu.Module("".join(found))


def name_of(op: Op) -> str:
    return op.name.title().replace("_", "")


def kernel_name(case: Case) -> str:
    return f"fused_penalty_{name_of(case.op)}{'_anchored' if case.anchors is not None else ''}_few"


def place(device: ptxemu.Device, case: Case) -> tuple[list[int], list[int]]:
    """The addresses that a launch is given (leaves, anchors, outputs), and where each output lies."""
    olds = case.olds or [np.zeros_like(x) for x in case.leaves]
    outs = [device.put(x, skew) for x, skew in zip(olds, case.skew, strict=True)]
    inputs = [
        [device.put(x, skew) for x, skew in zip(arrays, case.skew, strict=True)]
        for arrays in ([case.leaves] if case.anchors is None else [case.leaves, case.anchors])
    ]
    addresses = [a for arrays in inputs for a in arrays]
    if case.op in IN_PLACE:
        outs = [out if i in case.absent else x for i, (out, x) in enumerate(zip(outs, inputs[0], strict=True))]
    if case.op in WRITES:
        addresses += [0 if i in case.absent else a for i, a in enumerate(outs)]
    return addresses, outs


def written(device: ptxemu.Device, case: Case, outs: list[int]) -> list[np.ndarray]:
    return [
        device.get(a, np.uint8, x.nbytes).view(x.dtype).reshape(x.shape)
        for a, x in zip(outs, case.leaves, strict=True)
        if case.op in WRITES
    ]


def run_ptx(module: ptxemu.Module, case: Case, *, grid: int = 3, gran: str = "block", seed: int = 0) -> Result:
    device = ptxemu.Device()
    table, slots = case.plan.table, case.plan.slot_count
    real = np.dtype(case.real)
    assert case.strengths is not None
    addresses, outs = place(device, case)
    columns = len(case.op.columns)
    totals, one = device.alloc(slots * columns * real.itemsize), device.alloc(4)
    arguments = Arguments(
        device.put(table), device.put(case.strengths.astype(real)), device.alloc(8 * columns * len(table)),
        device.put(np.zeros(1, np.uint32)), totals, one, 0, len(table), slots, len(case.leaves),
        case.wide, case.wide, (ctypes.c_uint64 * 480)(*addresses),
    )  # fmt: skip
    module.launch(device, kernel_name(case), grid, THREADS, [bytes(arguments)], gran=gran, seed=seed)
    found = device.get(totals, real, slots * columns).reshape(-1, columns)
    return Result(found, float(device.get(one, np.float32, 1)[0]), written(device, case, outs))
