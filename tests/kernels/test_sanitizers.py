"""The CPU kernels as a program of their own, and the whole Python module, under sanitizers (`make sanitize`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SOURCE = ROOT / "tests" / "kernels"
COMPILER = os.environ.get("CXX", "g++")

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which(COMPILER) is None, reason="needs cmake and a C++ compiler"
)


def built(name: str, flags: str, *options: str) -> Path:
    """The build folder, kept between runs."""
    folder = ROOT / "build" / f"sanitize-{name}"
    settings = [f"-DSANITIZE={flags}", "-DCMAKE_BUILD_TYPE=Release", *options]
    for command in (
        ["cmake", "-S", str(SOURCE), "-B", str(folder), *settings],
        ["cmake", "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def build() -> dict[str, Path]:
    """The test program under each sanitizer."""
    flags = {"address": "address,undefined", "thread": "thread"}
    return {name: built(name, f) / "kernels_test" for name, f in flags.items()}


def run(program: Path, mode: str) -> subprocess.CompletedProcess[str]:
    # Without address randomisation: TSan of GCC 12 does not start on kernels that randomise more bits.
    prefix = ["setarch", "-R"] if shutil.which("setarch") else []
    return subprocess.run([*prefix, str(program), mode], capture_output=True, text=True, timeout=300)


CLEAN = [("address", mode) for mode in ("values", "threads", "forks", "failing")]
# No forks: a child that starts threads is too much for TSan.
CLEAN += [("thread", mode) for mode in ("threads", "callers", "failing")]


@pytest.mark.parametrize(("sanitizer", "mode"), CLEAN)
def test_kernels_are_clean(build: dict[str, Path], sanitizer: str, mode: str) -> None:
    done = run(build[sanitizer], mode)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{mode}: 0 failures" in done.stdout


@pytest.mark.parametrize(
    ("sanitizer", "mode", "report"),
    [("address", "overrun", "heap-buffer-overflow"), ("thread", "race", "data race")],
)
def test_seeded_faults_are_caught(build: dict[str, Path], sanitizer: str, mode: str, report: str) -> None:
    """The test of the test."""
    done = run(build[sanitizer], mode)
    assert done.returncode != 0
    assert report in done.stderr


# The module: Python itself is not instrumented, so the runtime is preloaded, and libstdc++ with it, whose exceptions
# the runtime wants to see from the start.


def runtime(name: str) -> str:
    found = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip(f"{COMPILER} has no shared {name} to preload")
    return found


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """That of a Python whose `fused_penalty._cpu` is instrumented."""
    pytest.importorskip("torch", reason="the module is driven through torch and JAX")
    pytest.importorskip("jax", reason="the module is driven through torch and JAX")
    pybind11 = pytest.importorskip("pybind11", reason="needs pybind11 to build the module")
    preload = [runtime("libasan.so"), runtime("libstdc++.so.6")]
    options = [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"]
    folder = built("module", "address,undefined", "-DMODULE=ON", *options)
    (module,) = folder.glob("_cpu*.so")
    paths = [SOURCE / "site", ROOT]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it has until the end
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "CPU_MODULE": str(module),
        "JAX_PLATFORMS": "cpu",
    }


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=ROOT)


def test_the_module_is_clean(environment: dict[str, str]) -> None:
    """Every operation through torch and JAX on random lists, and the forged custom calls."""
    from tests.kernels.forged import groups

    done = python(environment, "-c", "from tests.kernels import sanitized; sanitized.drive()")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["alive"] * len(groups()) + ["driven"]


def test_launches_are_clean(environment: dict[str, str]) -> None:
    """The tests of `_cpu.launch` itself, forged arguments and all."""
    slow = "not custom_calls and not two_to_the_31 and not forked"
    files = ("tests/kernels/test_native.py", "tests/kernels/test_forged.py")
    done = python(environment, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", slow)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seeded_fault_of_the_module_is_caught(environment: dict[str, str]) -> None:
    """The test of the test."""
    done = python(environment, "-c", "from tests.kernels import sanitized; sanitized.use_after_free()")
    assert done.returncode != 0
    assert "heap-use-after-free" in done.stderr
