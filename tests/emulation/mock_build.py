"""Builds the CUDA module, its sources as they are, with g++ against the mock runtime (mock_runtime.h)."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

from tests.emulation.harness import toolkit
from tests.support.paths import ROOT

HERE = ROOT / "tests" / "emulation"
MODULE = ("jax_cuda", "jax_step_cuda", "module_cuda", "step_arrays", "step_cuda", "tensors")


def build(folder: Path, source: Path = ROOT) -> Path:
    """The module `_cuda`; `source` is the checkout whose kernels/ and csrc/ it is made of."""
    top = toolkit()
    assert top is not None
    third_party = (source / "third_party" / name for name in ("xla", "dlpack"))
    system = (*third_party, top / "include", pybind11.get_include(), sysconfig.get_path("include"))
    flags = ["-std=c++20", "-O1", "-g1", "-fPIC", "-ffp-contract=off", f"-I{HERE}"]
    flags += [x for path in system for x in ("-isystem", str(path))]
    mocked = ["-include", str(HERE / "mock_runtime.h"), "-x", "c++"]
    units: dict[Path, list[str]] = {
        source / "kernels/cuda" / f"{name}.cu": mocked for name in ("step_launch", "launch")
    }
    units |= {source / "csrc" / f"{name}.cc": [] for name in MODULE}
    units[HERE / "mock_runtime.cc"] = []

    def compiled(unit: Path) -> str:
        made = str(folder / f"{unit.stem}.o")
        run(["g++", *flags, *units[unit], "-c", str(unit), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, units))
    module = folder / "_cuda.so"
    run(["g++", "-shared", *objects, "-o", str(module)])
    return module


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
