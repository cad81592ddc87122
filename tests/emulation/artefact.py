"""The compiled CUDA kernels, read from their machine code: registers, spills, widths of loads, bytes in flight.

    python -m tests.emulation.artefact            prints the table
    python -m tests.emulation.artefact --write    puts it into docs/gpu.md

Registers, spills and warps are those of the kernel that is launched, with its switch over dtypes; loads and stores are
counted in each dtype's own walk. cuobjdump comes with Triton's package.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.emulation.harness import ROOT
from tests.emulation.images import make

ARCHS = ("sm_80", "sm_90", "sm_100", "sm_120")
REGISTERS, WARPS = 65536, {"sm_80": 64, "sm_90": 64, "sm_100": 64, "sm_120": 48}  # of one SM
THREADS = 256
DTYPES = {"float16": "__half", "bfloat16": "__nv_bfloat16", "float32": "float", "float64": "double"}
OPS = {
    "sums": "kSums", "gradient": "kGradient", "add_gradient": "kAddGradient", "prox": "kProx",
    "regularize": "kRegularize", "stats": "kStats",
}  # fmt: skip
KERNELS = {
    f"{name}{suffix}": (f"Op::{op}", anchored)
    for name, op in OPS.items()
    for suffix, anchored in (("", "false"), (", anchor", "true"))
}
# Bytes in flight that keep an SM's share of the memory busy (Little's law): bandwidth x about 1 µs / SMs, and a quarter
# more, as if nothing were written. An A100 has 2.04 TB/s for 108 SMs: 19 KB. An H100 has 3.35 TB/s for 132: 25 KB, and
# consumer cards ask for less (RTX 5090: 1.79 TB/s for 170, 11 KB). A B200 (8 TB/s for 148) would ask for 54 KB where it
# only reads: sm_100 is held to what sm_90 needs, which is not a claim that it fills a B200.
NEEDED = {"sm_80": 24 * 1024, "sm_90": 32 * 1024, "sm_100": 32 * 1024, "sm_120": 32 * 1024}
MARK = "<!-- artefact table -->"
PAGE = ROOT / "docs" / "gpu.md"


def cuobjdump() -> str | None:
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        tool = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        if tool.exists():
            return str(tool)
    return shutil.which("cuobjdump")


@dataclass(frozen=True)
class Row:
    kernel: str
    dtype: str
    arch: str
    registers: int
    spills: int  # bytes of stack and local memory, accesses to them
    wide_loads: int  # 128-bit loads of a thread that are under way at once
    wide_stores: int  # 128-bit stores in the kernel
    warps: int  # resident on an SM, by registers

    @property
    def in_flight(self) -> int:
        return self.warps * 32 * self.wide_loads * 16


PROBE = """
extern "C" __global__ void __launch_bounds__(kThreads, blocks_of({op}, {anchored}))
    probe_{name}(const __grid_constant__ Arguments<480> arg) {{
  over_chunks<OpColumns<{op}>>(
      arg, [&arg](const Chunk& chunk) {{ return walk<{type}, {op}, {anchored}>(chunk, arg); }});
}}
"""


def source(kernel: str) -> str:
    """The kernel that is launched, and for each dtype its walk without the switch over the others."""
    op, anchored = KERNELS[kernel]
    probes = [PROBE.format(name=name, type=t, op=op, anchored=anchored) for name, t in DTYPES.items()]
    return f"""#include "kernels/cuda/kernel.h"
using namespace fused_penalty;
using namespace fused_penalty::cuda;
{"".join(probes)}
#define NAME penalty_kernel
#define OP {op}
#define ANCHORED {anchored}
#define CAPACITY kFew
#include "kernels/cuda/images/entry.cu"
"""


def compiled(source: str, arch: str, folder: Path) -> Path:
    code, cubin = folder / "probe.cu", folder / "probe.cubin"
    code.write_text(source)
    subprocess.run(
        ["nvcc", *make.FLAGS, f"-arch={arch}", f"-I{ROOT}", "-cubin", str(code), "-o", str(cubin)],
        check=True,
        capture_output=True,
    )
    return cubin


def machine_code(cubin: Path) -> dict[str, str]:
    """By function."""
    tool = cuobjdump()
    assert tool is not None
    sass = subprocess.run([tool, "-sass", cubin], check=True, capture_output=True, text=True).stdout
    return {f.split()[0]: f for f in sass.split("Function : ")[1:]}


def measure(kernel: str, arch: str, folder: Path) -> list[Row]:
    """A row for each dtype."""
    cubin = compiled(source(kernel), arch, folder)
    tool = cuobjdump()
    assert tool is not None
    usage = subprocess.run([tool, "--dump-resource-usage", cubin], check=True, capture_output=True, text=True).stdout
    bodies = machine_code(cubin)
    whole = re.search(r"Function \S*penalty_kernel\S*:\s*\n.*?REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)", usage)
    assert whole is not None
    registers, stack, local = map(int, whole.groups())
    launched = next(f for name, f in bodies.items() if "penalty_kernel" in name)
    spills = stack + local + len(re.findall(r"\b(?:LDL|STL)\b", launched))
    warps = resident_warps(registers, arch)
    rows = []
    for dtype in DTYPES:
        body = bodies[f"probe_{dtype}"]
        stores = len(re.findall(r"STG\.E[.\w]*\.128", body))
        rows.append(Row(kernel, dtype, arch, registers, spills, burst(body), stores, warps))
    return rows


def resident_warps(registers: int, arch: str) -> int:
    """Warps of an SM that registers allow, in blocks of THREADS."""
    per_block = -(-registers // 8) * 8 * THREADS
    return min(REGISTERS // per_block * THREADS // 32, WARPS[arch])


def burst(sass: str) -> int:
    """The most 128-bit loads that are under way at once."""
    return under_way(sass, r"LDG\.E[.\w]*\.(128)") // 16


def under_way(sass: str, loads: str) -> int:
    """The most bytes that are under way at once, of loads that this finds with their bits: in a stretch of code, none
    of whose loaded registers is read before the last of the loads."""
    best, pending = 0, []
    for line in sass.splitlines():
        load = re.search(rf"{loads}[.\w]* R(\d+)", line)
        if load:
            first, bits = int(load[2]), int(load[1])
            pending.append((set(range(first, first + bits // 32)), bits // 8))
            best = max(best, sum(n for _, n in pending))
        elif re.search(r"/\*[0-9a-f]{4}\*/", line):
            operands = line.split("/*", 2)[1] if "/*" in line else line
            read = {int(r) for r in re.findall(r"\bR(\d+)", operands)}
            if any(read & registers for registers, _ in pending) or "BRA" in line:
                pending = []
    return best


def table() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return [row for k in KERNELS for a in ARCHS for row in measure(k, a, Path(folder))]


def markdown(rows: list[Row]) -> str:
    head = "| kernel | dtype | arch | registers | spills | loads in flight | stores | warps/SM | KB in flight/SM |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r.kernel} | {r.dtype} | {r.arch} | {r.registers} | {r.spills} | {r.wide_loads} | {r.wide_stores} "
        f"| {r.warps} | {r.in_flight // 1024} |"
        for r in rows
    ]
    return "\n".join(lines)


def show(text: str, mark: str) -> None:
    """Prints the table, or puts it between the marks of the page."""
    if "--write" in sys.argv:
        before, _, after = PAGE.read_text().split(mark)
        PAGE.write_text(f"{before}{mark}\n{text}\n{mark}{after}")
    else:
        print(text)


if __name__ == "__main__":
    show(markdown(table()), MARK)
