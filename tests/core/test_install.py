"""`pip install ./` on machines that are not this one: without a C++ compiler, with one that does not work or is too
old; without nvcc, with one that does not run, with a CMake that is too old: CUDA needs none of them. What the build
decides is seen in CMake's configuration alone, which takes seconds."""

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
CMAKE_OLD = ("cmake", "echo 'cmake version 3.25.1'; test \"$1\" = --version")
CXX_BROKEN = ("c++", "echo 'cc1plus: cannot execute' >&2; exit 1")
CXX_17 = ("c++", f'exec {shutil.which("c++")} "$@" -std=c++17')


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


def words(text: str) -> str:
    """As one line: CMake wraps its messages."""
    return " ".join(text.split())


def configure(sources: Path, build: Path, env: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    pybind11 = pytest.importorskip("pybind11", reason="CMake needs pybind11 here")
    cmake = pytest.importorskip("cmake", reason="needs CMake's package")
    command = [Path(cmake.CMAKE_BIN_DIR) / "cmake", "-S", sources, "-B", build]
    command += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    command += [f"-D{name}={env.get(name, 'AUTO')}" for name in ("FUSED_PENALTY_CPU", "FUSED_PENALTY_CUDA")]
    command += more
    return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=300)


def has_cuda(folder: Path) -> bool:
    return (folder / "build" / "CMakeFiles" / "_cuda.dir").exists()


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


@pytest.mark.parametrize("tools", [(), (NVCC_BROKEN,)], ids=["no nvcc", "a broken nvcc"])
def test_cuda_needs_no_nvcc(sources: Path, tmp_path: Path, tools: tuple[tuple[str, str], ...]) -> None:
    done = configure(sources, tmp_path / "build", environment(tmp_path, *tools))
    assert done.returncode == 0, done.stderr
    assert "CUDA module is left out" not in done.stdout + done.stderr
    assert has_cuda(tmp_path)


def test_off_leaves_it_out(sources: Path, tmp_path: Path) -> None:
    done = configure(sources, tmp_path / "build", environment(tmp_path, FUSED_PENALTY_CUDA="OFF"))
    assert done.returncode == 0, done.stderr
    assert not has_cuda(tmp_path)


@pytest.mark.parametrize(
    ("tools", "reason"),
    [((), "nvcc is needed for machine code"), ((NVCC_BROKEN,), "nvcc cannot compile .*libcudart")],
    ids=["no nvcc", "a broken nvcc"],
)
def test_machine_code_insists_on_nvcc(
    sources: Path, tmp_path: Path, tools: tuple[tuple[str, str], ...], reason: str
) -> None:
    make = sources / "kernels" / "cuda" / "images" / "make.py"
    command = [sys.executable, str(make), "pack", str(tmp_path), str(tmp_path), "90"]
    done = subprocess.run(command, env=environment(tmp_path, *tools), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.search(reason, done.stderr, re.DOTALL), done.stderr


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


def built(python: Path) -> tuple[set[str], str]:
    """The native modules that were installed, and what that of CUDA says of this machine."""
    code = "import fused_penalty as fp; print(fp.__file__); from fused_penalty import _cuda; print(_cuda.presence())"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=python.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    where, _, presence = done.stdout.partition("\n")
    assert Path(where).is_relative_to(python.parent.parent)
    return {f.name.split(".")[0] for f in Path(where).parent.glob("_*.so")}, presence


def test_installs_beside_a_broken_nvcc(sources: Path, tmp_path: Path) -> None:
    """Both modules; what CUDA lacks is the driver. Not optimised, which would take most of the time."""
    quick = "--config-settings=cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0"
    python, done = pip_install(sources, tmp_path, environment(tmp_path, NVCC_BROKEN, CMAKE_OLD), quick)
    assert done.returncode == 0, done.stdout + done.stderr
    modules, presence = built(python)
    assert modules == {"_cpu", "_cuda"}
    assert re.match(r"\(False, 'no (NVIDIA driver: libcuda\.so\.1|device)|\(True, None\)", presence), presence
