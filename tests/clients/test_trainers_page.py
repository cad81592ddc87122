"""The examples of docs/trainers.md, but for Keras', which `keras_suite.py` runs on both backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from .page import EXAMPLES, run

MODULES = {"Lightning": "lightning", "Hugging Face Trainer": "transformers"}  # others are called as in the page


@pytest.mark.parametrize("library", [name for name in EXAMPLES if name != "Keras"])
def test_the_example_runs(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = MODULES.get(library, library)
    pytest.importorskip(name, reason=f"{name} is not installed (make clients)")
    monkeypatch.chdir(tmp_path)
    run(library)


def test_there_is_one_for_each() -> None:
    assert list(EXAMPLES) == ["Lightning", "Hugging Face Trainer", "accelerate", "skorch", "timm", "Keras"]
