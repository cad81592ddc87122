"""What test_emulated_step.py runs in a process of its own: a step's kernel, built under a sanitizer, on arrays that are
not a byte longer than needed."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import torch

from fused_penalty import _cpu
from fused_penalty._core.plan import BOTH, plan_of_layout
from fused_penalty._core.steps import COEFFICIENTS, COLUMNS, Step
from tests.emulation.harness import CHUNK
from tests.emulation.mocked_steps import same
from tests.emulation.ptx.program import Arguments
from tests.support.step_cases import ADAM, DTYPES, Arrays, bits

SIZES = [n for n in (0, 3, 1, 2055, CHUNK + 5) for _ in DTYPES]
WIDE = 1  # the mark at an address of x: step_kernel.h
SCHEDULES = ((1, 1), (3, 2), (13, 3))  # (grid, seed)


def arrays() -> Arrays:
    return Arrays(Step.AMSGRAD, DTYPES, anchored=True, sizes=SIZES, skew=True)


def emulate(library: ctypes.CDLL, made: Arrays, coefficients: torch.Tensor, grid: int, *, wide: bool) -> torch.Tensor:
    """The totals. `wide`: coefficients and totals in float64, else in 32 bits."""
    reads = made.reads()
    table = plan_of_layout(reads[0].layout, BOTH, CHUNK).table
    leaves, columns = len(made.xs), len(COLUMNS)
    x, *others = ([a or 0 for a in read.addresses] for read in reads)
    marked = [
        a | WIDE * (s != d) for a, (d, s) in zip(x, (DTYPES[i % len(DTYPES)] for i in range(leaves)), strict=True)
    ]
    rows = coefficients.numpy().astype(np.float64 if wide else np.float32)
    totals = np.full((leaves, columns), 7, rows.dtype)
    partials, ticket = np.empty((len(table), columns)), np.zeros(1, np.uint32)
    addresses = [*marked, *(a for read in others for a in read)]
    arguments = Arguments(
        table.ctypes.data, rows.ctypes.data, partials.ctypes.data, ticket.ctypes.data, totals.ctypes.data, 0, 0,
        len(table), leaves, leaves, wide, wide, (ctypes.c_uint64 * 480)(*addresses),
    )  # fmt: skip
    library.emulated_step(ctypes.byref(arguments), grid)
    if not wide:
        counts = totals[:, 4:].copy().view(np.uint32)
        totals = np.concatenate([totals[:, :4].astype(np.float64), counts], axis=1)
    return torch.from_numpy(totals)


def drive(path: str) -> None:
    """The same bits on every schedule, which are the CPU's; with coefficients of either width."""
    library, expected = ctypes.CDLL(path), arrays()
    coefficients = expected.coefficients(**ADAM, threshold=0.01, pull=0.03, metric=1.0).float().double()
    coefficients[4, COEFFICIENTS.index("skip")] = 1  # of one leaf
    known = expected.launch(coefficients, _cpu.best_isa())
    totals = []
    for grid, seed in SCHEDULES:
        os.environ["CUDA_EMUL_SEED"] = str(seed)
        made = arrays()
        totals.append(emulate(library, made, coefficients, grid, wide=seed != 3))
        same(made, expected, (totals[-1], known))
        assert bits(made.written()) == bits(expected.written())
    assert torch.equal(totals[0], totals[1])
    print("right")
