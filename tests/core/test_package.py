"""The wheel, and the code in the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_wheel(tmp_path: Path) -> None:
    """A wheel of this checkout holds the package with its native module, and works where it is unpacked. Built apart
    from this environment's own, without CUDA and not optimised, which takes most of the time."""
    settings = (f"build-dir={tmp_path / 'build'}", "cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command = [*pip, *(f"--config-settings={s}" for s in settings), "-w", str(tmp_path), f"{ROOT}/"]
    env = {**os.environ, "FUSED_PENALTY_CUDA": "OFF"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("fused_penalty-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert any(re.fullmatch(r"fused_penalty/_cpu\..*\.so", n) for n in names)
    assert {"fused_penalty/__init__.py", "fused_penalty/py.typed", "fused_penalty/_cpu.pyi"} <= set(names)
    kernels = {f"fused_penalty/_kernels/triton/{f.name}" for f in (ROOT / "kernels" / "triton").glob("*.py")}
    assert len(kernels) >= 4
    assert kernels <= set(names)
    top = {n.split("/")[0] for n in names}
    assert top == {"fused_penalty", next(t for t in top if t.endswith(".dist-info"))}
    code = f"""
import sys
sys.meta_path = [f for f in sys.meta_path if "editable" not in type(f).__module__.lower()]
sys.path.insert(0, {str(tmp_path / "site")!r})
import fused_penalty as fp
assert fp.__file__.startswith({str(tmp_path)!r}), fp.__file__
assert all(row[3] for row in fp.backends().rows if row[0] == "cpu"), fp.backends()
try:
    import triton
except ImportError:
    pass
else:
    import fused_penalty._kernels.triton.kernel as kernel
    assert kernel.__file__.startswith({str(tmp_path)!r}), kernel.__file__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", BLOCKS, ids=[b.strip().splitlines()[0][:40] for b in BLOCKS])
def test_readme_code_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_readme_has_code() -> None:
    assert len(BLOCKS) >= 2
