"""A fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping

from tests.support.paths import ROOT

HIDE = """
    import sys, importlib.abc
    class Hide(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name in {names!r}: raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Hide())
"""


def hiding(*names: str) -> str:
    """Code that makes the import of these modules fail, as if they were not installed."""
    return textwrap.dedent(HIDE).format(names=names)


def run_fresh(code: str, environment: Mapping[str, str] | None = None) -> str:
    """The output of the code in an interpreter of its own, in which every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    env = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
    return done.stdout.strip()
