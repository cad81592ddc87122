"""`pip install ./` on machines that are not this one: with nvcc and a CMake that is too old for it, with an nvcc that
does not run or is too old, and without any. Each in an environment of its own, with build isolation, from a copy of the
sources. What the build decides about CUDA is seen in CMake's configuration alone, which takes seconds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDERS = ("csrc", "kernels", "python", "third_party")
FILES = ("CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml")
SETTINGS = ("CUDACXX", "CUDA_PATH", "CUDA_HOME", "CUDAToolkit_ROOT", "FUSED_PENALTY_CUDA", "FUSED_PENALTY_CUDA_ARCHS")
# What stands in for a tool: its name, and what it does.
NVCC_BROKEN = ("nvcc", "echo 'libcudart: cannot open shared object file' >&2; exit 1")
NVCC_11 = ("nvcc", "echo 'Cuda compilation tools, release 11.8, V11.8.89'")
NVCC_LIES = ("nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.48'")
CMAKE_OLD = ("cmake", "echo 'cmake version 3.25.1'; test \"$1\" = --version")

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, in which a build leaves this checkout's own alone."""
    copy = tmp_path_factory.mktemp("sources")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    return copy


def environment(folder: Path, *tools: tuple[str, str], nvcc: bool = False, **settings: str) -> dict[str, str]:
    """This process's, with these tools first in PATH, and without nvcc unless it is wanted. pip may use its network."""
    shims = folder / "shims"
    shims.mkdir()
    for name, does in tools:
        (shims / name).write_text(f"#!/bin/sh\n{does}\n")
        (shims / name).chmod(0o755)
    path = [shims]
    for k, entry in enumerate(map(Path, os.environ["PATH"].split(os.pathsep))):
        if (entry / "nvcc").exists() and not nvcc:
            path.append(folder / f"path{k}")
            path[-1].mkdir()
            for tool in entry.iterdir():
                if tool.name != "nvcc":
                    (path[-1] / tool.name).symlink_to(tool)
        elif entry != Path(sys.executable).parent:  # this environment's CMake would hide the system's
            path.append(entry)
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return {**kept, "PATH": os.pathsep.join(map(str, path)), **settings}


def configure(sources: Path, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    pybind11 = pytest.importorskip("pybind11", reason="CMake needs pybind11 here")
    cmake = pytest.importorskip("cmake", reason="needs CMake's package")
    command = [Path(cmake.CMAKE_BIN_DIR) / "cmake", "-S", sources, "-B", folder / "build"]
    command += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    command += [f"-DFUSED_PENALTY_CUDA={env.get('FUSED_PENALTY_CUDA', 'AUTO')}", "-DFUSED_PENALTY_CUDA_ARCHS=90"]
    return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=300)


def words(text: str) -> str:
    """As one line: CMake wraps its messages."""
    return " ".join(text.split())


# What is in PATH, and what is said about it.
REASONS = {
    "none": ((), r"no CUDA compiler \(nvcc\) was found"),
    "broken": ((NVCC_BROKEN,), r"\S+nvcc --version fails \(1\): libcudart"),
    "old": ((NVCC_11,), r"\S+nvcc is release 11\.8; 12\.1 or newer is needed"),
    "lies": ((NVCC_LIES,), r"CMake [\d.]+ cannot build with \S+nvcc"),
}


@pytest.mark.parametrize("kind", REASONS)
def test_auto_goes_on_without_cuda_and_says_why(sources: Path, tmp_path: Path, kind: str) -> None:
    tools, reason = REASONS[kind]
    done = configure(sources, tmp_path, environment(tmp_path, *tools))
    assert done.returncode == 0, done.stderr
    assert re.search(f"The CUDA module is left out: {reason}", words(done.stdout + done.stderr)), done.stderr
    assert ("CMake Warning" in done.stderr) == (kind != "none")
    assert not (tmp_path / "build" / "CMakeFiles" / "_cuda.dir").exists()


@pytest.mark.parametrize("kind", REASONS)
def test_on_insists_and_says_why(sources: Path, tmp_path: Path, kind: str) -> None:
    tools, reason = REASONS[kind]
    done = configure(sources, tmp_path, environment(tmp_path, *tools, FUSED_PENALTY_CUDA="ON"))
    assert done.returncode != 0
    assert re.search(f"FUSED_PENALTY_CUDA=ON, but {reason}", words(done.stderr)), done.stderr


def test_off_does_not_look(sources: Path, tmp_path: Path) -> None:
    done = configure(sources, tmp_path, environment(tmp_path, NVCC_BROKEN, FUSED_PENALTY_CUDA="OFF"))
    assert done.returncode == 0, done.stderr
    assert "CUDA" not in done.stdout + done.stderr


@needs_nvcc
def test_nvcc_is_taken(sources: Path, tmp_path: Path) -> None:
    """And tried once: the second configuration knows."""
    env = environment(tmp_path, nvcc=True)
    done = configure(sources, tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert "Trying" in done.stdout
    assert (tmp_path / "build" / "CMakeFiles" / "_cuda.dir").exists()
    shutil.rmtree(tmp_path / "shims")
    again = configure(sources, tmp_path, env)
    assert again.returncode == 0, again.stderr
    assert "Trying" not in again.stdout


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


def built(python: Path) -> tuple[set[str], str]:
    """The native modules that were installed, and what the package says of its backends."""
    code = "import fused_penalty as fp; print(fp.__file__); print(fp.backends())"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=python.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    where, _, backends = done.stdout.partition("\n")
    assert Path(where).is_relative_to(python.parent.parent)
    return {f.name.split(".")[0] for f in Path(where).parent.glob("_*.so")}, backends


def test_installs_beside_a_broken_nvcc(sources: Path, tmp_path: Path) -> None:
    """Without any nvcc the same is built: what differs is the sentence, which is tested above. Not optimised, which
    would take most of the time."""
    quick = "--config-settings=cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0"
    python, done = pip_install(sources, tmp_path, environment(tmp_path, NVCC_BROKEN, CMAKE_OLD), quick)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The CUDA module is left out" in done.stdout + done.stderr
    modules, backends = built(python)
    assert modules == {"_cpu"}
    assert "its native module was not built" in backends


@needs_nvcc
def test_builds_where_nvcc_is_newer_than_the_system_s_cmake(sources: Path, tmp_path: Path) -> None:
    """By a CMake that pip brings. The kernels themselves take minutes, and make builds them: here it is the
    configuration, in build isolation, with the small project that find.cmake builds. CUDA is insisted on."""
    env = environment(tmp_path, CMAKE_OLD, nvcc=True, FUSED_PENALTY_CUDA_ARCHS="90", FUSED_PENALTY_CUDA="ON")
    folder = tmp_path / "build"
    options = [f"build-dir={folder}", "build.targets=clean", "install.components=none"]
    _, done = pip_install(sources, tmp_path, env, *(f"--config-settings={o}" for o in options))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert re.search(r"Trying \S*nvcc", done.stdout + done.stderr)
    assert (folder / "CMakeFiles" / "_cuda.dir").exists()
    assert list((folder / "cuda-probe").glob("libprobe.*"))
