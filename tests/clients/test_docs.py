"""The code of docs/ that needs a library of `make clients`; tests/docs/test_code.py runs the rest."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.code_blocks import Block, blocks

BLOCKS = [b for b in blocks("python") if b.clients()]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in sorted(block.clients()):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (make clients)")
    monkeypatch.chdir(tmp_path)  # trainers write
    if "keras" in block.clients():  # which has one backend for each process
        done = subprocess.run([sys.executable, "-c", block.text], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        block.run()
