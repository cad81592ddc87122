"""The CUDA source of a step as host C++, under ASan: all kinds of leaves, on several schedules and grids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulation.harness import toolkit
from tests.support.fresh import run_fresh
from tests.support.paths import ROOT

pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
pytest.importorskip("torch", reason="_cpu.step reads torch's tensors")
pytestmark = [
    pytest.mark.skipif(toolkit() is None, reason="the emulator needs the headers of a CUDA toolkit (nvcc)"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the emulator's fibers are for Linux"),
]


def runtime(name: str) -> str:
    """A library that has to be loaded before Python itself."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def build(folder: Path, *flags: str) -> Path:
    library = folder / "emulated_step.so"
    top = toolkit()
    assert top is not None
    here = ROOT / "tests" / "emulation"
    command = ["g++", "-std=c++20", "-g1", "-O1", "-ffp-contract=off", "-shared", "-fPIC", *flags]
    command += [f"-I{ROOT}", f"-I{here}", "-isystem", str(top / "include"), str(here / "emulated_step.cc")]
    done = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


def test_memory_is_sound_and_bits_are_the_cpus(tmp_path: Path) -> None:
    library = build(tmp_path, "-fsanitize=address,alignment", "-fno-sanitize-recover=all")
    preload = " ".join(runtime(name) for name in ("libasan.so", "libstdc++.so.6"))
    environment = {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}
    code = f"from tests.emulation import emulated_step; emulated_step.drive({str(library)!r})"
    assert run_fresh(code, environment) == "right"
