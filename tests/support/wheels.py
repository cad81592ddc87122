"""A wheel: how it is built, what is in it, what it links, and a fresh environment that has it.

A framework is lent to such an environment as a folder of links to its files here: what a download of a GB would give.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.paths import ROOT

# What every Linux has that has a glibc; PEP 600 allows no more to a wheel.
SYSTEM = re.compile(r"(libc|libm|libpthread|libdl|librt|libstdc\+\+|libgcc_s|ld-linux[\w-]*)\.so\.\d+")


# What git does not track, which scikit-build-core leaves out, too, but only after a look at each file.
UNTRACKED = (".git", ".venv*", "build", "dist", "site", "results", "__pycache__", ".*_cache", ".hypothesis", "*.so")


def sources(folder: Path) -> Path:
    """A copy of this checkout, in which a build leaves the checkout's own alone."""
    return Path(shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*UNTRACKED)))


def sdist(folder: Path) -> Path:
    """The sources as they are released, unpacked in `folder`."""
    code = f"from scikit_build_core.build import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=sources(folder), capture_output=True)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


def contents(wheel: Path) -> set[str]:
    """The files of the package in the wheel; of dist-info, that there is one."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    inner = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert {f.rpartition("/")[2] for f in inner} >= {"METADATA", "WHEEL", "RECORD", "LICENSE", "entry_points.txt"}
    return names - inner


def expected(native: Iterable[str]) -> set[str]:
    """The files that such a wheel has: the Python package, Triton's kernels, and the native modules of these names."""
    folders = {
        "fused_penalty": ROOT / "python" / "fused_penalty",
        "fused_penalty/_kernels/triton": ROOT / "kernels/triton",
    }
    found = {
        f"{to}/{file.relative_to(folder)}"
        for to, folder in folders.items()
        for file in folder.rglob("*")
        if file.suffix in (".py", ".pyi", ".typed")
    }
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return {*found, "fused_penalty/_left_out.py", *(f"fused_penalty/{name}{suffix}" for name in native)}


def unfit(module: Path) -> list[str]:
    """What is wrong with a native module of a Linux wheel, by readelf: a library that not every machine has, a path to
    search, a table that stays writable."""
    done = subprocess.run(["readelf", "-W", "-d", "-l", str(module)], check=True, capture_output=True, text=True)
    libraries = re.findall(r"\(NEEDED\).*\[(.+)\]", done.stdout)
    wrong = [f"needs {name}" for name in libraries if not SYSTEM.fullmatch(name)]
    wrong += re.findall(r"\((?:RPATH|RUNPATH)\).*", done.stdout)
    if "GNU_RELRO" not in done.stdout or not re.search(r"BIND_NOW|\bNOW\b", done.stdout):
        wrong.append("has no full RELRO")
    return wrong


def environment(folder: Path, wheel: Path) -> Path:
    """A new environment with this wheel alone; its interpreter."""
    import venv

    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return python


def lent(folder: Path, *names: str) -> Path:
    """`folder` with links to all that these distributions need; what is there already is as good."""
    folder.mkdir(exist_ok=True)
    for found in _closure(names).values():
        for file in found.files or ():
            first = file.parts[0]
            link = folder / first
            if first not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(found.locate_file(first))
    return folder


def _closure(names: Iterable[str]) -> dict[str, Distribution]:
    """The distributions and what they require, as far as it is installed here."""
    found: dict[str, Distribution] = {}
    left = list(names)
    while left:
        name = left.pop()
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue
        key = re.sub(r"[-_.]+", "-", one.name).lower()
        if key not in found:
            found[key] = one
            needed = map(Requirement, one.requires or ())
            left += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def run(python: Path, code: str, *paths: Path) -> str:
    """The output of code in such an environment, with what is lent to it. Nothing but the environment is in its PATH,
    so no compiler either, and every warning is an error."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FUSED_PENALTY"))}
    env |= {"PATH": str(python.parent), "PYTHONPATH": os.pathsep.join(map(str, paths)), "JAX_PLATFORMS": "cpu"}
    command = [str(python), "-W", "error", "-c", code]
    done = subprocess.run(command, env=env, cwd=python.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
