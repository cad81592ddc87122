"""kernels/cuda/images/make.py as a module: it stands beside what it makes."""

from __future__ import annotations

import importlib.util
import sys

from tests.support.paths import ROOT

FOLDER = ROOT / "kernels" / "cuda" / "images"
_spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
assert _spec is not None
assert _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
sys.modules["make"] = make  # its dataclass looks itself up
_spec.loader.exec_module(make)
