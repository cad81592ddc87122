"""The CUDA kernels of the steps, read from their machine code, as artefact.py does for the operations.

    python -m tests.emulation.step_artefact            prints the table
    python -m tests.emulation.step_artefact --write    puts it into docs/gpu.md

Registers and spills are those of the kernels in the module that was built; loads and stores are counted in the walk of
one dtype, which is compiled without the switch over the others.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fused_penalty._core.steps import Step
from tests.emulation.artefact import compiled, cuobjdump, machine_code, resident_warps, show, under_way

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
    """A kernel in the module."""

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


def in_the_module() -> dict[tuple[str, str], Launched]:
    """By name and architecture."""
    found, tool = importlib.util.find_spec("fused_penalty._cuda"), cuobjdump()
    assert found is not None
    assert found.origin is not None
    assert tool is not None
    command = [tool, "--dump-resource-usage", found.origin]
    usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kernels = {}
    for part in usage.split("\narch = ")[1:]:
        pattern = r"step_kernelILNS_4StepE(\d)ELb([01])\S*\s+REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)"
        for code, anchored, registers, stack, local in re.findall(pattern, part):
            name = name_of(Step(int(code)), anchored == "1")
            kernels[name, part.split()[0]] = Launched(int(registers), int(stack) + int(local))
    return kernels


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


def markdown() -> str:
    head = "| step | leaf | arch | registers | spills | bytes in flight/thread | stores | warps/SM | KB in flight/SM |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for (kernel, arch), launched in sorted(in_the_module().items(), key=lambda item: (item[0][1], item[0][0])):
        lines += [
            f"| {r.kernel} | {r.kind} | {r.arch} | {launched.registers} | {launched.stack} | {r.loaded} | {r.stores} "
            f"| {r.warps} | {r.in_flight // 1024} |"
            for r in measure(kernel, arch, launched)
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    show(markdown(), MARK)
