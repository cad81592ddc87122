"""The wheel, and the code in the README: built once, from the sdist, or given as FUSED_PENALTY_WHEEL (`make wheel`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support import wheels
from tests.support.paths import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
GIVEN = os.environ.get("FUSED_PENALTY_WHEEL")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.sdist(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """Of the sdist, without CUDA and not optimised, which takes most of the time."""
    if GIVEN:
        return Path(GIVEN).resolve()
    folder = tmp_path_factory.mktemp("wheel")
    settings = (f"build-dir={folder / 'build'}", "cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command = [*pip, *(f"--config-settings={s}" for s in settings), "-w", str(folder), f"{sources}/"]
    env = {**os.environ, "FUSED_PENALTY_CPU": "ON", "FUSED_PENALTY_CUDA": "OFF"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("fused_penalty-*.whl")
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    return wheels.environment(tmp_path_factory.mktemp("fresh") / "venv", wheel)


@pytest.fixture(scope="module")
def lend(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("lent")
    return lambda *names: wheels.lent(folder / "-".join(sorted(names)), *names)


def test_the_sdist_holds_what_it_takes(sources: Path) -> None:
    files = {str(f.relative_to(sources)) for f in sources.rglob("*") if f.is_file()}
    top = {f.split("/")[0] for f in files}
    assert {"CMakeLists.txt", "Makefile", "constraints.txt", "csrc", "kernels", "python", "tests", "third_party"} <= top
    strange = {f for f in files if f != "PKG-INFO" and not (ROOT / f).is_file()}
    assert strange == set()
    assert not any(f.endswith((".so", ".pyc", ".whl")) or f.startswith((".venv", "build/")) for f in files)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    found = wheels.contents(wheel)
    native = {"_cpu", "_cuda"} if any(re.search(r"/_cuda\..*\.(so|pyd)$", name) for name in found) else {"_cpu"}
    assert found == wheels.expected(native)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_the_native_modules_run_on_every_linux(wheel: Path, tmp_path: Path) -> None:
    """They need no library of a framework or of CUDA, so that one wheel serves all their versions."""
    with zipfile.ZipFile(wheel) as archive:
        modules = [archive.extract(name, tmp_path) for name in archive.namelist() if name.endswith(".so")]
    assert modules
    assert {Path(m).name: wrong for m in modules if (wrong := wheels.unfit(Path(m)))} == {}


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_an_unfit_module_is_found() -> None:
    """The test of the test: numpy's modules need a library of their own, and have a path to it."""
    import numpy as np

    (found,) = (Path(np.__file__).parent / "_core").glob("_multiarray_umath.*.so")
    assert any("openblas" in wrong for wrong in wheels.unfit(found))
    assert any("PATH" in wrong for wrong in wheels.unfit(found))


COMPUTE = {
    "jax": "import jax.numpy as jnp; from fused_penalty.jax import penalty; x = jnp.array([1.0, -2.0])",
    "torch": "import torch; from fused_penalty.torch import penalty; x = torch.tensor([1.0, -2.0])",
}


@pytest.mark.parametrize("name", COMPUTE)
def test_it_computes_with_one_framework(python: Path, lend: Callable[..., Path], name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    other = next(n for n in COMPUTE if n != name)
    code = f"{COMPUTE[name]}; print(float(penalty([x], 1.0, 1.0, backend='cpu'))); import fused_penalty as fp\n"
    code += f"import importlib.util; print(importlib.util.find_spec({other!r}), fp.__file__)"
    value, rest = wheels.run(python, code, lend("numpy", name)).splitlines()
    assert float(value) == 8
    assert rest.startswith(f"None {python.parent.parent}")


def test_it_imports_without_a_framework(python: Path, lend: Callable[..., Path]) -> None:
    code = "import fused_penalty as fp; fp.L1L2(0.1); print(fp.backends()); print(fp.__version__)"
    found = wheels.run(python, code, lend("numpy"))
    for name in COMPUTE:  # the framework is what is missing, not the native module
        assert re.search(rf"^cpu +{name} +cpu +no +No module named '{name}'$", found, re.MULTILINE), found


def libraries(block: str) -> tuple[str, ...]:
    """The distributions of what the block imports."""
    modules = re.findall(r"^(?:import|from) (.+?)(?: import .*)?$", block, re.MULTILINE)
    tops = {part.split(" as ")[0].strip().split(".")[0] for line in modules for part in line.split(",")}
    roofs = {"optax"} if "fused_penalty.optax" in block else set()
    known = packages_distributions()
    return tuple(sorted({known[top][0] for top in (tops | roofs) - {"fused_penalty"} if top in known} | {"numpy"}))


@pytest.mark.parametrize("needs", sorted({libraries(block) for block in BLOCKS}), ids="-".join)
def test_readme_code_runs(python: Path, lend: Callable[..., Path], needs: tuple[str, ...]) -> None:
    """Each block by itself, with the libraries that it imports and no others."""
    mine = [block for block in BLOCKS if libraries(block) == needs]
    code = f"for block in {mine!r}: exec(compile(block, 'README.md', 'exec'), {{'__name__': 'readme'}})"
    wheels.run(python, code, lend(*needs))


def test_readme_has_code() -> None:
    assert len(BLOCKS) >= 2
