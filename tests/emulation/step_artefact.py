"""The CUDA kernels of the steps, read from their machine code, as artefact.py does for the operations.

    python -m tests.emulation.step_artefact            prints the table
    python -m tests.emulation.step_artefact --write    puts it into docs/gpu.md

Registers and spills are those of the images that the module carries; loads and stores are counted in the walk of one
dtype, which is compiled without the switch over the others.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fused_penalty._core.steps import Step
from tests.emulation.artefact import compiled, machine_code, resident_warps, show, under_way
from tests.emulation.harness import toolkit
from tests.emulation.images import make

# Name of the dtypes: of x and of the state.
KINDS = {
    "float16": ("__half", "__half"),
    "bfloat16, float32 state": ("__nv_bfloat16", "float"),
    "float32": ("float", "float"),
    "float64": ("double", "double"),
}


def name_of(step: Step, anchored: bool) -> str:
    return step.name.lower() + (", anchor" if anchored else "")


KERNELS = {name_of(step, anchored): (step, anchored) for step in Step for anchored in (False, True)}
MARK = "<!-- step artefact table -->"
STREAMED = r"LDG\.E\.EF[.\w]*\.(64|128)"  # the arrays; coefficients and tables are loaded otherwise


@dataclass(frozen=True)
class Launched:
    """A kernel as it is launched."""

    registers: int
    stack: int  # bytes of stack and local memory of a thread: what is spilled


@dataclass(frozen=True)
class Row:
    kernel: str
    kind: str
    arch: str
    launched: Launched
    loaded: int  # bytes that a thread has under way at once
    stores: int  # of 64 and 128 bits, in the code

    @property
    def warps(self) -> int:
        return resident_warps(self.launched.registers, self.arch)

    @property
    def in_flight(self) -> int:
        """Bytes of an SM."""
        return self.warps * 32 * self.loaded


def launched(kernel: str, arch: str) -> Launched:
    """What ptxas, which every driver has in it, makes of the PTX that the module carries."""
    step, anchored = KERNELS[kernel]
    name = f"fused_penalty_step_{step.name.title().replace('_', '')}{'_anchored' if anchored else ''}"
    ptx = archive()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "step.ptx"
        file.write_text(ptx.get(f"{name}.80.ptx", ptx[f"{name}.70.ptx"]))
        command = [ptxas(), "-v", f"-arch={arch}", str(file), "-o", os.devnull]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    registers = re.search(r"Used (\d+) registers", said)
    assert stack is not None
    assert registers is not None
    return Launched(int(registers[1]), sum(map(int, stack.groups())))


archive = functools.cache(make.read_archive)


def ptxas() -> str:
    top = toolkit()
    assert top is not None
    return str(top / "bin" / "ptxas")


PROBE = """
extern "C" __global__ void __launch_bounds__(kThreads, step_blocks({step}, {anchored}))
    probe{number}(const __grid_constant__ Arguments<480> arg) {{
  over_chunks<StepColumns>(
      arg, [&arg](const Chunk& chunk) {{ return step_chunk<{x}, {state}, {step}, {anchored}>(chunk, arg); }});
}}
"""


def measure(kernel: str, arch: str, launched: Launched) -> list[Row]:
    """A row for each kind of leaf."""
    step, anchored = KERNELS[kernel]
    of = {"step": f"static_cast<Step>({int(step)})", "anchored": str(anchored).lower()}
    probes = [PROBE.format(number=i, x=x, state=s, **of) for i, (x, s) in enumerate(KINDS.values())]
    head = '#include "kernels/cuda/step_kernel.h"\nusing namespace fused_penalty;\nusing namespace fused_penalty::cuda;'
    with tempfile.TemporaryDirectory() as folder:
        bodies = machine_code(compiled(head + "".join(probes), arch, Path(folder)))
    return [
        Row(
            kernel, kind, arch, launched,
            under_way(bodies[f"probe{i}"], STREAMED), len(re.findall(r"STG\.E[.\w]*\.(?:64|128)", bodies[f"probe{i}"])),
        )
        for i, kind in enumerate(KINDS)
    ]  # fmt: skip


def every(archs: Sequence[str]) -> dict[tuple[str, str], Launched]:
    """By name and architecture."""
    cases = list(itertools.product(KERNELS, archs))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(lambda case: launched(*case), cases), strict=True))


def markdown() -> str:
    head = "| step | leaf | arch | registers | spills | bytes in flight/thread | stores | warps/SM | KB in flight/SM |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for (kernel, arch), found in sorted(every(("sm_80", "sm_90")).items(), key=lambda item: (item[0][1], item[0][0])):
        lines += [
            f"| {r.kernel} | {r.kind} | {r.arch} | {found.registers} | {found.stack} | {r.loaded} | {r.stores} "
            f"| {r.warps} | {r.in_flight // 1024} |"
            for r in measure(kernel, arch, found)
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    show(markdown(), MARK)
