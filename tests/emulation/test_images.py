"""The PTX of the CUDA kernels in the repository: of these sources, and fit for the oldest driver and device."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.emulation.images import make
from tests.support.paths import ROOT

IMAGES = make.read_archive()
ABOUT = dict(line.split() for line in IMAGES.pop("about").splitlines())
KERNELS = {kernel.name: kernel for kernel in make.kernels()}


def test_they_are_of_these_sources() -> None:
    assert ABOUT["sources"] == make.sources(), "a kernel has changed: run `make images` where nvcc is"


def test_there_is_one_for_each_kernel() -> None:
    """For the oldest device, and again for newer ones where that differs; nothing in it is newer than CUDA 12.1."""
    by_arch = {arch: {n.split(".")[0] for n in IMAGES if n.endswith(f".{arch}.ptx")} for arch in make.ARCHS}
    assert by_arch["70"] == set(KERNELS)
    assert by_arch["80"] < set(KERNELS)
    for name, text in IMAGES.items():
        kernel, arch, _ = name.split(".")
        assert text.startswith(f".version 8.1\n.target sm_{arch}\n.address_size 64\n")
        assert re.findall(r"\.entry (\w+)\(", text) == [kernel]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(("name", "arch"), [("fused_penalty_addresses", "70"), ("fused_penalty_Sums_few", "80")])
def test_one_made_anew_is_the_same(name: str, arch: str) -> None:
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    if f"V{ABOUT['nvcc']}" not in version:
        pytest.skip(f"they were made by nvcc {ABOUT['nvcc']}, which is another")
    expected = IMAGES.get(f"{name}.{arch}.ptx", IMAGES[f"{name}.70.ptx"].replace("sm_70", f"sm_{arch}"))
    assert make.ptx(KERNELS[name], arch) == expected


def ptxas() -> Path | None:
    """That of Triton's package, which still knows Volta."""
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        return None
    found = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
    return found if found.exists() else None


@pytest.mark.skipif(ptxas() is None, reason="needs ptxas, which Triton's package carries")
@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("fused_penalty_Sums_few.70", "70"),
        ("fused_penalty_addresses.70", "75"),
        ("fused_penalty_step_ProxMetric.70", "70"),
        ("fused_penalty_step_ProxMetric.80", "86"),
    ],
)
def test_the_oldest_devices_take_them(name: str, device: str, tmp_path: Path) -> None:
    """ptxas refuses what is newer than the .version and the .target that the text claims."""
    (tmp_path / "image.ptx").write_text(IMAGES[f"{name}.ptx"])
    command = [str(ptxas()), f"-arch=sm_{device}", str(tmp_path / "image.ptx"), "-o", str(tmp_path / "image.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


CHOICE = """
#include <cstdio>
#include <initializer_list>

#include "kernels/cuda/images.h"

int main() {
  for (int device : {61, 70, 75, 80, 86, 89, 90, 100, 120}) {
    const auto* image = fused_penalty::cuda::best_image("k", device);
    const auto why = fused_penalty::cuda::why_no_image(device);
    printf("%d %s%d%s\\n", device, image ? image->kind ? "cubin " : "ptx " : "", image ? image->arch : 0, why.c_str());
  }
}
"""
# Machine code runs where the major number is the same, PTX everywhere later; machine code first.
CHOSEN = """
61 0compute capability 6.1 is below 7.0, the lowest of the kernels
70 ptx 70
75 ptx 70
80 cubin 80
86 cubin 86
89 cubin 86
90 cubin 90
100 ptx 80
120 ptx 80
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_best_one_for_a_device(tmp_path: Path) -> None:
    images = (("kCubin", 90), ("kPtx", 80), ("kCubin", 80), ("kPtx", 70), ("kCubin", 86))
    rows = [f'{{"other", kCubin, 100, 0}},{{"k", {kind}, {arch}, 0}},' for kind, arch in images]
    (tmp_path / "images.inc").write_text("\n".join(rows))
    (tmp_path / "choice.cc").write_text(CHOICE)
    command = ["g++", "-std=c++20", f"-I{tmp_path}", f"-I{ROOT}", f'-DFUSED_PENALTY_IMAGES="{tmp_path}/images.inc"']
    sources = [str(tmp_path / "choice.cc"), str(ROOT / "kernels" / "cuda" / "images.cc")]
    subprocess.run([*command, *sources, "-o", str(tmp_path / "choice")], check=True)
    found = subprocess.run([str(tmp_path / "choice")], check=True, capture_output=True, text=True).stdout
    assert found.split("\n") == CHOSEN.lstrip().split("\n")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_machine_code_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image lies at a multiple of 16; PTX ends with a zero, as a driver wants it."""
    kernel = KERNELS["fused_penalty_addresses"]
    monkeypatch.setattr(make, "kernels", lambda: [kernel])
    text = IMAGES[f"{kernel.name}.70.ptx"]
    (tmp_path / f"{kernel.name}.70.ptx").write_text(text)
    make.pack(tmp_path, tmp_path, ["90"])
    found = re.findall(r'\{"(\w+)", (\w+), (\d+), (\d+)\},', (tmp_path / "images.inc").read_text())
    assert [row[:3] for row in found] == [(kernel.name, "kPtx", "70"), (kernel.name, "kCubin", "90")]
    packed, at = (tmp_path / "images.bin").read_bytes(), int(found[1][3])
    assert packed.startswith(text.encode() + b"\0")
    assert at % 16 == 0
    assert packed[at:].startswith(b"\x7fELF")
