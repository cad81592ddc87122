"""Keras 3 on JAX and on PyTorch: `keras_suite.py`, which must find its backend chosen before Keras is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SUITE = Path(__file__).with_name("keras_suite.py")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_suite(backend: str, tmp_path: Path) -> None:
    for needed, remedy in ((backend, ""), ("keras", " (make clients)")):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed{remedy}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE)]
    env = {**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:]
