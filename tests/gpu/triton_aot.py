"""The Triton kernel compiled for GPUs that are not here, and a case run through the PTX that comes out."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import numpy as np

import ptxemu
from fused_penalty._plan import Op
from harness import Case, Result

THREADS = 256  # of kernels/triton/walk.py
WARP = {"gfx942": 64}  # else 32
NVIDIA, AMD = (80, 90, 100, 120), ("gfx942", "gfx1100")


def installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def compiled(arch: int | str, op: Op, anchored: bool) -> Any:
    """As `_torch_triton` has it compiled: options, and arguments that PyTorch's allocator aligns to 16 bytes."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from fused_penalty._kernels.triton.kernel import penalty_kernel
    from fused_penalty._torch_triton import COMPILED_WITH

    types = {"layout": "*i64", "addresses": "*i64", "strengths": "*fp64", "partials": "*fp64", "ticket": "*i32"}
    types |= {"totals": "*fp64", "chunk_count": "i32", "slot_count": "i32", "leaf_count": "i32"}
    pointers = [i for i, t in enumerate(types.values()) if t.startswith("*")]
    warp = WARP.get(str(arch), 32)
    source = ASTSource(
        penalty_kernel,
        types | {"OP": "constexpr", "ANCHORED": "constexpr"},
        constexprs={"OP": int(op), "ANCHORED": anchored},
        attrs={(i,): [["tt.divisibility", 16]] for i in pointers},
    )
    target = GPUTarget("cuda" if isinstance(arch, int) else "hip", arch, warp)
    return compile(source, target=target, options={**COMPILED_WITH, "num_warps": THREADS // warp})


@functools.cache
def module(arch: int, op: Op, anchored: bool) -> ptxemu.Module:
    return ptxemu.Module(compiled(arch, op, anchored).asm["ptx"])


def run_ptx(case: Case, arch: int, *, grid: int = 3, gran: str = "block", seed: int = 0) -> Result:
    from fused_penalty._torch_triton import layout_words

    op, device = Op(case.op), ptxemu.Device()
    assert case.strengths is not None
    slots, chunks = case.plan.slot_count, len(case.plan.table)
    arrays = [case.leaves] if case.anchors is None else [case.leaves, case.anchors]
    at = [[device.put(x, skew) for x, skew in zip(a, case.skew, strict=True)] for a in arrays]
    outs = [device.alloc(x.nbytes, skew) for x, skew in zip(case.leaves, case.skew, strict=True)]
    written = op not in (Op.SUMS, Op.STATS)
    if written:
        at.append([0 if i in case.absent else a for i, a in enumerate(outs)])
    totals = device.alloc(slots * op.columns * 8)
    ticket = device.put(np.zeros(1, np.int32))
    arguments = [
        device.put(layout_words(case.plan)), device.put(np.array(at, np.uint64)),
        device.put(case.strengths.astype(np.float64)), device.alloc(chunks * op.columns * 8), ticket, totals,
        chunks, slots, len(case.leaves),
    ]  # fmt: skip
    built = compiled(arch, op, case.anchors is not None)
    code, shared = module(arch, op, case.anchors is not None), built.metadata.shared
    code.launch(device, built.name, grid, THREADS, arguments, dyn_shared=shared, gran=gran, seed=seed)
    assert device.get(ticket, np.int32, 1)[0] == 0
    found = [device.get(a, np.uint8, x.nbytes).view(x.dtype) for a, x in zip(outs, case.leaves, strict=True)]
    return Result(device.get(totals, np.float64, slots * op.columns).reshape(slots, -1), 1.0, found if written else [])
