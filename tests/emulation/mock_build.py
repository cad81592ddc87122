"""Builds the mock driver, libcuda.so.1, with g++: the kernels are emulated, the module of the package is as it is."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.emulation.harness import toolkit
from tests.support.paths import ROOT

HERE = ROOT / "tests" / "emulation"
UNITS = ("step_kernels", "kernels", "driver", "xla")  # the slow ones first


def build(folder: Path) -> Path:
    top = toolkit()
    assert top is not None
    flags = ["-std=c++20", "-O1", "-g1", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", f"-I{HERE}"]
    flags += ["-isystem", str(ROOT / "third_party" / "xla"), "-isystem", str(top / "include")]

    def compiled(unit: str) -> str:
        made = str(folder / f"{unit}.o")
        run(["g++", *flags, "-c", str(HERE / "mock" / f"{unit}.cc"), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, UNITS))
    library = folder / "libcuda.so.1"
    run(["g++", "-shared", "-Wl,-soname,libcuda.so.1", *objects, "-o", str(library)])
    return library


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
