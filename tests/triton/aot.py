"""The Triton kernels compiled for GPUs that are not here, and a case run through the PTX that comes out."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fused_penalty._core.operations import Op
from fused_penalty._core.steps import Step
from tests.emulation.harness import Case, Result
from tests.emulation.ptx import emulator as ptxemu
from tests.emulation.ptx.program import place, written

THREADS = 256  # of kernels/triton/walk.py
WARP = {"gfx942": 64}  # else 32
NVIDIA, AMD = (80, 90, 100, 120), ("gfx942", "gfx1100")


@functools.cache
def compiled(arch: int | str, op: Op, anchored: bool, small: bool = False) -> Any:
    """As `torch/backends/triton.py` compiles it."""
    from fused_penalty._kernels.triton.kernel import penalty_kernel
    from fused_penalty.torch.backends.triton import compiled_with, constants

    capability = arch if isinstance(arch, int) else None
    return built(arch, penalty_kernel, constants(op, anchored, small), compiled_with(op, capability))


@functools.cache
def compiled_step(arch: int | str, step: Step, anchored: bool, wide: bool) -> Any:
    """The same of the kernel of a step."""
    from fused_penalty._kernels.triton.step_kernel import step_kernel
    from fused_penalty.torch.backends.triton import STEP_OPTIONS, step_constants

    return built(arch, step_kernel, step_constants(step, anchored, wide), STEP_OPTIONS)


def built(arch: int | str, kernel: Any, fixed: dict[str, Any], options: dict[str, Any]) -> Any:
    """With arguments that PyTorch's allocator aligns to 16 bytes."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    types = {"layout": "*i64", "addresses": "*i64", "coefficients": "*fp64", "partials": "*fp64", "ticket": "*i32"}
    types |= {"totals": "*fp64", "chunk_count": "i32", "slot_count": "i32", "leaf_count": "i32"}
    pointers = [i for i, t in enumerate(types.values()) if t.startswith("*")]
    warp = WARP.get(str(arch), 32)
    source = ASTSource(
        kernel,
        types | dict.fromkeys(fixed, "constexpr"),
        constexprs=fixed,
        attrs={(i,): [["tt.divisibility", 16]] for i in pointers},
    )
    target = GPUTarget("cuda" if isinstance(arch, int) else "hip", arch, warp)
    return compile(source, target=target, options={**options, "num_warps": THREADS // warp})


@functools.cache
def module(arch: int, op: Op, anchored: bool, small: bool) -> ptxemu.Module:
    return ptxemu.Module(compiled(arch, op, anchored, small).asm["ptx"])


def run_ptx(case: Case, arch: int, *, grid: int = 3, gran: str = "block", seed: int = 0, ahead: int = 0) -> Result:
    """`ahead`: every leaf lies that many elements into a larger one, whose address is that much lower."""
    from fused_penalty.torch.backends.triton import layout_words

    device = ptxemu.Device()
    assert case.strengths is not None
    assert case.wide, "torch has float64 strengths and totals"
    slots, chunks, columns = case.plan.slot_count, len(case.plan.table), len(case.op.columns)
    addresses, outs = place(device, case)
    words = layout_words(case.plan)
    words[: 2 * chunks : 2] += ahead << 24
    ahead *= case.leaves[0].itemsize
    totals, ticket = device.alloc(8 * slots * columns), device.put(np.zeros(1, np.int32))
    arguments = [
        device.put(words), device.put(np.array([a and a - ahead for a in addresses], np.uint64)),
        device.put(case.strengths.astype(np.float64)), device.alloc(8 * chunks * columns), ticket, totals,
        chunks, slots, len(case.leaves),
    ]  # fmt: skip
    of = (arch, case.op, case.anchors is not None, case.plan.has_small)
    kernel = compiled(*of)
    module(*of).launch(
        device, kernel.name, grid, THREADS, arguments, dyn_shared=kernel.metadata.shared, gran=gran, seed=seed
    )
    assert device.get(ticket, np.int32, 1)[0] == 0, "the next launch needs the ticket at zero"
    found = device.get(totals, np.float64, slots * columns).reshape(slots, columns)
    return Result(found, 1.0, written(device, case, outs))
