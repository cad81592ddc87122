"""`pip install ./` on machines that are not this one: without a C++ compiler, with one that does not work or is too
old; with nvcc and a CMake that is too old for it, with an nvcc that does not run or is too old, and without any. What
the build decides is seen in CMake's configuration alone, which takes seconds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.support import wheels

SETTINGS = ("CUDACXX", "CUDA_PATH", "CUDA_HOME", "CUDAToolkit_ROOT", "CXX", "CXXFLAGS")
# What CMake would take for a compiler.
NVCC = re.compile("nvcc")
CXX = re.compile(r"(.*-)?(c\+\+|g\+\+|clang\+\+|icpx|aCC|CC|xlC|c89|cc|gcc|clang)(-[\d.]+)?|nvcc")
# What stands in for a tool: its name, and what it does.
NVCC_BROKEN = ("nvcc", "echo 'libcudart: cannot open shared object file' >&2; exit 1")
NVCC_11 = ("nvcc", "echo 'Cuda compilation tools, release 11.8, V11.8.89'")
NVCC_LIES = ("nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.48'")
CMAKE_OLD = ("cmake", "echo 'cmake version 3.25.1'; test \"$1\" = --version")
CXX_BROKEN = ("c++", "echo 'cc1plus: cannot execute' >&2; exit 1")
CXX_17 = ("c++", f'exec {shutil.which("c++")} "$@" -std=c++17')

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.sources(tmp_path_factory.mktemp("sources"))


def environment(
    folder: Path, *tools: tuple[str, str], hidden: re.Pattern[str] | None = NVCC, **settings: str
) -> dict[str, str]:
    """This process's, with these tools first in PATH, and without those that are hidden. pip may use its network."""
    shims = folder / "shims"
    shims.mkdir()
    for name, does in tools:
        (shims / name).write_text(f"#!/bin/sh\n{does}\n")
        (shims / name).chmod(0o755)
    path = [shims]
    for k, entry in enumerate(map(Path, os.environ["PATH"].split(os.pathsep))):
        names = [tool.name for tool in entry.iterdir()] if entry.is_dir() else []
        if hidden and any(map(hidden.fullmatch, names)):
            path.append(folder / f"path{k}")
            path[-1].mkdir()
            for name in names:
                if not hidden.fullmatch(name):
                    (path[-1] / name).symlink_to(entry / name)
        elif entry != Path(sys.executable).parent:  # this environment's CMake would hide the system's
            path.append(entry)
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*SETTINGS, "FUSED_PENALTY"))}
    return {**kept, "PATH": os.pathsep.join(map(str, path)), **settings}


@pytest.fixture(scope="module")
def cpp_is_known(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder in which CMake has found the C++ compiler, for what is asked about CUDA."""
    folder = tmp_path_factory.mktemp("configured")
    done = configure(sources, folder / "build", environment(folder, FUSED_PENALTY_CUDA="OFF"))
    assert done.returncode == 0, done.stderr
    assert "CUDA" not in done.stdout + done.stderr
    return folder / "build"


def configure(sources: Path, build: Path, env: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    pybind11 = pytest.importorskip("pybind11", reason="CMake needs pybind11 here")
    cmake = pytest.importorskip("cmake", reason="needs CMake's package")
    command = [Path(cmake.CMAKE_BIN_DIR) / "cmake", "-S", sources, "-B", build]
    command += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    command += [f"-D{name}={env.get(name, 'AUTO')}" for name in ("FUSED_PENALTY_CPU", "FUSED_PENALTY_CUDA")]
    command += ["-DFUSED_PENALTY_CUDA_ARCHS=90", *more]
    return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=300)


def words(text: str) -> str:
    """As one line: CMake wraps its messages."""
    return " ".join(text.split())


def reasons(build: Path) -> dict[str, str]:
    """What the package would say."""
    found: dict[str, Any] = {}
    exec((build / "_left_out.py").read_text(), found)
    return found["REASONS"]


# What is in PATH, and what is said about it.
CPU = {
    "none": ((), r"no C\+\+ compiler was found"),
    "broken": ((CXX_BROKEN,), r"the C\+\+ compiler that was found does not work"),
    "old": ((CXX_17,), r"the C\+\+ compiler \(.+\) cannot build it"),
    "no headers": ((("c++", f'exec {shutil.which("c++")} "$@"'),), r"Python's headers \(Python\.h\) were not found"),
}
CUDA = {
    "none": ((), r"no CUDA compiler \(nvcc\) was found"),
    "broken": ((NVCC_BROKEN,), r"\S+nvcc --version fails \(1\)"),
    "old": ((NVCC_11,), r"\S+nvcc is release 11\.8; 12\.1 or newer is needed"),
    "lies": ((NVCC_LIES,), r"CMake [\d.]+ cannot build with \S+nvcc"),
}


@pytest.mark.parametrize("kind", CPU)
def test_auto_goes_on_without_a_compiler_and_says_why(sources: Path, tmp_path: Path, kind: str) -> None:
    tools, reason = CPU[kind]
    more = [f"-DPython_INCLUDE_DIR={tmp_path}"] if kind == "no headers" else []
    done = configure(sources, tmp_path / "build", environment(tmp_path, *tools, hidden=CXX), *more)
    assert done.returncode == 0, done.stderr
    assert re.search(f"CMake Warning .* The CPU module is left out: {reason}:", words(done.stderr)), done.stderr
    assert re.fullmatch(reason, reasons(tmp_path / "build")["cpu"])
    assert reasons(tmp_path / "build")["cuda"] == "it needs the CPU module, which reads tensors for it"


def test_cpu_on_insists_and_off_does_not_look(sources: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, CXX_BROKEN, hidden=CXX)
    done = configure(sources, tmp_path / "build", {**env, "FUSED_PENALTY_CPU": "ON"})
    assert done.returncode != 0
    assert "FUSED_PENALTY_CPU=ON, but the C++ compiler that was found does not work" in words(done.stderr)
    done = configure(sources, tmp_path / "build", {**env, "FUSED_PENALTY_CPU": "OFF", "FUSED_PENALTY_CUDA": "OFF"})
    assert done.returncode == 0
    assert done.stderr.strip().startswith("CMake Warning (unused-cli)") or not done.stderr
    assert reasons(tmp_path / "build") == {n: f"FUSED_PENALTY_{n.upper()} was OFF" for n in ("cpu", "cuda")}


@pytest.mark.parametrize("kind", CUDA)
def test_auto_goes_on_without_cuda_and_says_why(sources: Path, tmp_path: Path, cpp_is_known: Path, kind: str) -> None:
    tools, reason = CUDA[kind]
    done = configure(sources, cpp_is_known, environment(tmp_path, *tools))
    assert done.returncode == 0, done.stderr
    assert re.search(f"The CUDA module is left out: {reason}", words(done.stdout + done.stderr)), done.stderr
    assert ("CMake Warning" in done.stderr) == (kind != "none")
    assert re.fullmatch(reason, reasons(cpp_is_known)["cuda"])
    assert not (cpp_is_known / "CMakeFiles" / "_cuda.dir").exists()


@pytest.mark.parametrize("kind", CUDA)
def test_on_insists_and_says_why(sources: Path, tmp_path: Path, cpp_is_known: Path, kind: str) -> None:
    tools, reason = CUDA[kind]
    done = configure(sources, cpp_is_known, environment(tmp_path, *tools, FUSED_PENALTY_CUDA="ON"))
    assert done.returncode != 0
    assert re.search(f"FUSED_PENALTY_CUDA=ON, but {reason}", words(done.stderr)), done.stderr


@needs_nvcc
def test_nvcc_is_taken(sources: Path, tmp_path: Path) -> None:
    """And tried once: the second configuration knows."""
    env = environment(tmp_path, hidden=None)
    done = configure(sources, tmp_path / "build", env)
    assert done.returncode == 0, done.stderr
    assert "Trying whether the CUDA module" in done.stdout
    assert (tmp_path / "build" / "CMakeFiles" / "_cuda.dir").exists()
    shutil.rmtree(tmp_path / "shims")
    again = configure(sources, tmp_path / "build", env)
    assert again.returncode == 0, again.stderr
    assert "Trying whether" not in again.stdout


def pip_install(
    sources: Path, folder: Path, env: dict[str, str], *options: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """`pip install ./`, and the interpreter of the new environment."""
    home = folder / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-input"]
    # Something tiny first: without an index there is no build isolation.
    probe = subprocess.run(
        [*pip, "install", "--quiet", "iniconfig"], env=env, capture_output=True, text=True, timeout=120
    )
    if probe.returncode:
        pytest.skip(f"the package index cannot be reached: {probe.stderr.strip()[-300:]}")
    command = [*pip, "install", "-v", *options, "./"]
    return python, subprocess.run(command, env=env, cwd=sources, capture_output=True, text=True, timeout=900)


def test_installs_without_a_compiler(sources: Path, tmp_path: Path) -> None:
    """What can be computed is computed, by the reference; the first call says so, once, and what to do."""
    pytest.importorskip("torch", reason="torch is not installed")
    env = environment(tmp_path, hidden=CXX)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "./"]
    # Not isolated, with what this environment has: that would take most of the time.
    lent = wheels.lent(tmp_path / "build-tools", "scikit-build-core", "cmake", "ninja")
    env["PYTHONPATH"] = str(lent)
    done = subprocess.run(
        [*pip, "--no-build-isolation"], env=env, cwd=sources, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    code = """
import warnings
import torch, fused_penalty as fp
from fused_penalty.torch import penalty
assert not penalty([torch.ones(3)], 1.0, backend="reference") - 3
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(2):
        assert float(penalty([torch.ones(3)], 1.0)) == 3
(one,) = seen
print(one.message)
print(fp.backends())
"""
    found = wheels.run(python, code, wheels.lent(tmp_path / "lent", "numpy", "torch"))
    reason = "its native module was not built (no C++ compiler was found); install from source with a C++20 compiler"
    assert found.startswith(f"fused_penalty runs its slow reference on this CPU: {reason}.")
    for name in ("jax", "torch"):
        assert re.search(rf"^cpu +{name} +cpu +no +{re.escape(reason)}", found, re.MULTILINE), found


@needs_nvcc
def test_builds_where_nvcc_is_newer_than_the_system_s_cmake(sources: Path, tmp_path: Path) -> None:
    """By a CMake that pip brings. The kernels themselves take minutes, and make builds them: here it is the
    configuration, in build isolation, with the small project that find.cmake builds. CUDA is insisted on."""
    env = environment(tmp_path, CMAKE_OLD, hidden=None, FUSED_PENALTY_CUDA_ARCHS="90", FUSED_PENALTY_CUDA="ON")
    folder = tmp_path / "build"
    options = [f"build-dir={folder}", "build.targets=clean", "install.components=none"]
    _, done = pip_install(sources, tmp_path, env, *(f"--config-settings={o}" for o in options))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "Trying whether the CUDA module can be built" in done.stdout + done.stderr
    assert (folder / "CMakeFiles" / "_cuda.dir").exists()
    assert list((folder / "cuda-probe").glob("libprobe.*"))
