"""The compiled Triton kernel, read from its machine code: registers, scratch, widths of loads and stores.

    python -m tests.triton.artefact            prints the table
    python -m tests.triton.artefact --write    puts it into docs/gpu.md

Nothing but Triton's package is needed: it carries ptxas, cuobjdump and LLVM's AMD backend.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fused_penalty._core.operations import Op
from tests.emulation.artefact import burst, cuobjdump, resident_warps, show
from tests.triton.aot import AMD, NVIDIA, compiled

MARK = "<!-- triton artefact table -->"


@dataclass(frozen=True)
class Row:
    kernel: str
    arch: str
    registers: int  # of a thread: NVIDIA; vector registers: AMD
    scratch: int  # bytes of stack and local memory of a thread: what would be spilled
    vector_loads: int  # instructions of 128 bits in the code, all dtypes
    vector_stores: int
    loads_in_flight: int | None  # 128-bit loads of a thread that are under way at once; NVIDIA

    @property
    def in_flight(self) -> int | None:
        """Bytes an SM: resident warps x 32 threads x loads x 16."""
        return self.loads_in_flight and resident_warps(self.registers, self.arch) * 32 * self.loads_in_flight * 16


def measure(arch: int | str, op: Op, anchored: bool) -> Row:
    name = op.name.lower() + (", anchor" if anchored else "")
    kernel = compiled(arch, op, anchored)
    return nvidia(name, f"sm_{arch}", kernel) if isinstance(arch, int) else amd(name, arch, kernel.asm["amdgcn"])


def nvidia(name: str, arch: str, kernel: Any) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage, sass = (
            subprocess.run([str(cuobjdump()), flag, str(cubin)], check=True, capture_output=True, text=True).stdout
            for flag in ("--dump-resource-usage", "-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)", usage)
    assert found is not None
    registers, stack, local = map(int, found.groups())
    spills = stack + local + len(re.findall(r"\b(?:LDL|STL)\b", sass))
    ptx = kernel.asm["ptx"]
    loads, stores = (len(re.findall(rf"\b{v}\.global\S*\.(?:v4\.b32|v2\.b64)", ptx)) for v in ("ld", "st"))
    return Row(name, arch, registers, spills, loads, stores, burst(sass))


def amd(name: str, arch: str, code: str) -> Row:
    def number(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", code)
        assert found is not None
        return int(found[1])

    loads, stores = (
        len(re.findall(rf"\b(?:global|buffer)_{verb}_(?:dwordx4|b128)", code)) for verb in ("load", "store")
    )
    scratch = number("private_segment_fixed_size") + number("vgpr_spill_count")
    return Row(name, arch, number("vgpr_count"), scratch, loads, stores, None)


def markdown() -> str:
    lines = [
        "| kernel | arch | registers | scratch | 128-bit loads | 128-bit stores | loads in flight | KB in flight/SM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arch in (*NVIDIA, *AMD):
        for op in Op:
            for anchored in (False, True):
                r = measure(arch, op, anchored)
                flight = f"{r.loads_in_flight} | {r.in_flight // 1024}" if r.in_flight else "|"
                lines.append(
                    f"| {r.kernel} | {r.arch} | {r.registers} | {r.scratch} | {r.vector_loads} "
                    f"| {r.vector_stores} | {flight} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    show(markdown(), MARK)
