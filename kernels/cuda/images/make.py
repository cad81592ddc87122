"""Makes the images of the CUDA kernels: one for each kernel, since a driver compiles PTX when it loads an image, and
only what is needed should have to be compiled.

    python kernels/cuda/images/make.py ptx      after a change of a kernel: writes ptx.tar.xz, with nvcc 13 or newer
    python kernels/cuda/images/make.py pack OUT PTX [ARCH ...]
        what the build embeds: the images unpacked in PTX, and by nvcc cubins of these architectures (80 90 ...)

PTX runs on its architecture and all newer ones. Its .version is lowered to what the oldest driver reads that passes 32
KB of arguments, 12.1 (R530). Nothing but Python's standard library is needed here.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1]
ARCHIVE = HERE / "ptx.tar.xz"
ARCHS = ("70", "80")  # of PTX; the second has instructions for bfloat16
VERSION = "8.1"  # of PTX
# No contraction but where the source says fma: every architecture and the emulator round alike.
FLAGS = ("-std=c++20", "-O3", "--fmad=false", "--expt-relaxed-constexpr")
ENTRIES = ("entry.cu", "step_entry.cu", "addresses_entry.cu")


@dataclass(frozen=True)
class Kernel:
    """An entry point: its name, as in kernels/cuda/names.h, its source, and what that is told."""

    name: str
    source: str
    macros: dict[str, str] = field(hash=False)

    def command(self, kind: str, arch: str, out: Path) -> list[str]:
        """`kind`: ptx or cubin."""
        target = f"compute_{arch}" if kind == "ptx" else f"sm_{arch}"
        macros = [f"-D{name}={value}" for name, value in ({"NAME": self.name} | self.macros).items()]
        return ["nvcc", *FLAGS, f"-arch={target}", f"-{kind}", *macros, str(HERE / self.source), "-o", str(out)]


def rows(table: str) -> list[str]:
    """The names of a table of operations or steps."""
    return re.findall(r"^  ROW\((\w+),", (KERNELS / table).read_text(), re.MULTILINE)


def kernels() -> Iterator[Kernel]:
    for suffix, anchored in (("", "false"), ("_anchored", "true")):
        for op in rows("operations.h"):
            for size in ("few", "many"):
                macros = {"OP": f"Op::k{op}", "ANCHORED": anchored, "CAPACITY": f"k{size.capitalize()}"}
                yield Kernel(f"fused_penalty_{op}{suffix}_{size}", "entry.cu", macros)
        for step in rows("steps.h"):
            macros = {"STEP": f"Step::k{step}", "ANCHORED": anchored, "CAPACITY": "kMany"}
            yield Kernel(f"fused_penalty_step_{step}{suffix}", "step_entry.cu", macros)
    yield Kernel("fused_penalty_addresses", "addresses_entry.cu", {"CAPACITY": "kMany"})


def compiled(kernel: Kernel, kind: str, arch: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "image"
        done = subprocess.run(kernel.command(kind, arch, out), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"nvcc cannot compile {kernel.name} for {arch}:\n{done.stdout}{done.stderr}")
        return out.read_bytes()


def ptx(kernel: Kernel, arch: str) -> str:
    """For a driver of CUDA 12.1: a hint that it does not know is left out, and so are comments, for size. nvcc 13 does
    not know Volta (70), but nothing here is newer, as ptxas confirms where it does."""
    text = compiled(kernel, "ptx", "75" if arch == "70" else arch).decode()
    text = re.sub(r"^\s*(//.*|\.pragma \"used_bytes_mask.*)?\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\.version .*", f".version {VERSION}", text, flags=re.MULTILINE)
    return re.sub(r"^\.target .*", f".target sm_{arch}", text, flags=re.MULTILINE)


def both(kernel: Kernel) -> dict[str, str]:
    """The PTX by architecture; once where it is the same."""
    old, new = (ptx(kernel, arch) for arch in ARCHS)
    same = old.replace(f".target sm_{ARCHS[0]}", f".target sm_{ARCHS[1]}") == new
    return {ARCHS[0]: old} if same else {ARCHS[0]: old, ARCHS[1]: new}


def sources() -> str:
    """A hash of all that the kernels are made of."""
    found: set[Path] = set()

    def add(file: Path) -> None:
        if file not in found and file.exists():  # cuda_emul.h is for the emulator
            found.add(file)
            for name in re.findall(r'^#include "(.*)"', file.read_text(), re.MULTILINE):
                add((file.parent / name).resolve())

    for entry in ENTRIES:
        add(HERE / entry)
    texts = [f"{file.relative_to(KERNELS)}\n{file.read_text()}" for file in sorted(found)]
    return hashlib.sha256("\n".join([*texts, *FLAGS, VERSION, *ARCHS]).encode()).hexdigest()


def write_archive() -> None:
    every = list(kernels())
    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(every, pool.map(both, every), strict=True))
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    about = f"sources {sources()}\nnvcc {re.findall(r'V([0-9.]+)', version)[0]}\n"
    files = {f"{kernel.name}.{arch}.ptx": text for kernel in every for arch, text in made[kernel].items()}
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for name, text in {"about": about, **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def read_archive() -> dict[str, str]:
    """The files of the archive."""
    with tarfile.open(ARCHIVE) as archive:
        members = {m.name: archive.extractfile(m) for m in archive.getmembers()}
        return {name: file.read().decode() for name, file in members.items() if file is not None}


def pack(out: Path, unpacked: Path, archs: list[str]) -> None:
    """One file with all images, each at a multiple of 16 and with a zero behind it, and their table for images.cc."""
    images: list[tuple[str, str, str, bytes]] = []
    for file in sorted(unpacked.glob("*.ptx")):
        name, arch, _ = file.name.split(".")
        images.append((name, "kPtx", arch, file.read_bytes()))
    if archs and shutil.which("nvcc") is None:
        sys.exit(f"nvcc is needed for machine code of {' '.join(archs)}, and is not in PATH")
    jobs = [(kernel, arch) for arch in archs for kernel in kernels()]
    with ThreadPoolExecutor() as pool:
        cubins = pool.map(lambda job: compiled(job[0], "cubin", job[1]), jobs)
        images += [(kernel.name, "kCubin", arch, data) for (kernel, arch), data in zip(jobs, cubins, strict=True)]
    table, at = [], 0
    with (out / "images.bin").open("wb") as file:
        for name, kind, arch, data in images:
            table.append(f'{{"{name}", {kind}, {arch}, {at}}},\n')
            at += file.write(data + bytes(16 - len(data) % 16))
    (out / "images.inc").write_text("".join(table))


if __name__ == "__main__":
    if sys.argv[1:] == ["ptx"]:
        write_archive()
    elif sys.argv[1:2] == ["pack"] and len(sys.argv) >= 4:
        pack(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        sys.exit(__doc__)
