"""A case through the PTX that nvcc emits, run by ptxemu."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fused_penalty._core.operations import Op
from tests.emulation.harness import IN_PLACE, ROOT, WRITES, Case, Result
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


SOURCE = """#include "kernels/cuda/kernel.h"
namespace fused_penalty::cuda {
// A function that takes their addresses instantiates the kernels of these operations.
template <Op... kOps>
void instantiate(const void** to) {
  ((*to++ = reinterpret_cast<const void*>(penalty_kernel<kOps, false, 480>),
    *to++ = reinterpret_cast<const void*>(penalty_kernel<kOps, true, 480>)),
   ...);
}
template void instantiate<%s>(const void**);
}
"""


def compile_ptx(folder: Path, arch: str, ops: Sequence[Op]) -> ptxemu.Module:
    code, out = folder / "kernels.cu", folder / f"{arch}.ptx"
    code.write_text(SOURCE % ", ".join(f"static_cast<Op>({int(op)})" for op in ops))
    flags = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "--fmad=false", f"-arch={arch}", f"-I{ROOT}", "-ptx"]
    done = subprocess.run(["nvcc", *flags, str(code), "-o", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ptxemu.Module(out.read_text())


def kernel_name(module: ptxemu.Module, case: Case) -> str:
    mangled = re.compile(rf"penalty_kernel.*OpE{case.op}ELb{int(case.anchors is not None)}ELi480")
    return next(name for name in module.kernels if mangled.search(name))


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
    module.launch(device, kernel_name(module, case), grid, THREADS, [bytes(arguments)], gran=gran, seed=seed)
    found = device.get(totals, real, slots * columns).reshape(-1, columns)
    return Result(found, float(device.get(one, np.float32, 1)[0]), written(device, case, outs))
