"""The results of the kernels, bit for bit as golden.json holds them. A change of the arithmetic shows here."""

from __future__ import annotations

import importlib.util
import json

import pytest

import fused_penalty as fp
from tests.support import golden

KNOWN = json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("name", KNOWN)
def test_the_bits_are_the_known_ones(name: str) -> None:
    framework, backend = name.split()
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    row = next(r for r in fp.backends().rows if r[:2] == (backend, framework))
    if not row[3] or "cpu" not in row[2]:
        pytest.skip(f"{backend} takes no tensors of the CPU here: {row[4]}")
    assert golden.results(framework, backend) == KNOWN[name]
