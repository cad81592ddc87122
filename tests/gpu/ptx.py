"""A case through the PTX that nvcc emits, run by ptxemu."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np

import ptxemu
from harness import GRADIENT, ROOT, Case, Result

THREADS = 256


class Arguments(ctypes.Structure):
    """`Arguments<480>` of kernels/cuda/kernel.h."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("chunks", "strengths", "partials", "ticket", "sums", "one", "more")),
        *((name, ctypes.c_int32) for name in ("chunk_count", "slots", "leaves")),
        ("wide_strengths", ctypes.c_bool),
        ("wide_sums", ctypes.c_bool),
        ("addresses", ctypes.c_uint64 * 480),
    ]


def compile_ptx(folder: Path, arch: str) -> ptxemu.Module:
    out = folder / f"{arch}.ptx"
    command = [
        "nvcc",
        "-std=c++17",
        "-O3",
        "--expt-relaxed-constexpr",
        "--fmad=false",
        f"-arch={arch}",
        f"-I{ROOT}",
        "-ptx",
    ]
    done = subprocess.run(
        [*command, str(ROOT / "tests/gpu/kernels.cu"), "-o", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return ptxemu.Module(out.read_text())


def kernel_name(module: ptxemu.Module, case: Case) -> str:
    mangled = re.compile(rf"penalty_kernel.*OpE{case.op}ELb{int(case.anchors is not None)}ELi480")
    return next(name for name in module.kernels if mangled.search(name))


def run_ptx(module: ptxemu.Module, case: Case, *, grid: int = 3, gran: str = "block", seed: int = 0) -> Result:
    device = ptxemu.Device()
    table, slots = case.plan.table, case.plan.slot_count
    real = np.dtype(case.real)
    assert case.strengths is not None
    outs = [device.alloc(x.nbytes, skew) for x, skew in zip(case.leaves, case.skew, strict=True)]
    inputs = [
        [device.put(x, skew) for x, skew in zip(arrays, case.skew, strict=True)]
        for arrays in ([case.leaves] if case.anchors is None else [case.leaves, case.anchors])
    ]
    addresses = [a for arrays in inputs for a in arrays]
    if case.op == GRADIENT:
        addresses += [0 if i in case.absent else a for i, a in enumerate(outs)]
    sums, one = device.alloc(slots * 2 * real.itemsize), device.alloc(4)
    arguments = Arguments(
        device.put(table), device.put(case.strengths.astype(real)), device.alloc(16 * len(table)),
        device.put(np.zeros(1, np.uint32)), sums, one, 0, len(table), slots, len(case.leaves),
        case.wide, case.wide, (ctypes.c_uint64 * 480)(*addresses),
    )  # fmt: skip
    module.launch(device, kernel_name(module, case), grid, THREADS, [bytes(arguments)], gran=gran, seed=seed)
    gradients = [
        device.get(a, np.uint8, x.nbytes).view(x.dtype).reshape(x.shape)
        for a, x in zip(outs, case.leaves, strict=True)
        if case.op == GRADIENT
    ]
    return Result(device.get(sums, real, slots * 2).reshape(-1, 2), float(device.get(one, np.float32, 1)[0]), gradients)
