"""The examples of docs/trainers.md and the docstrings of the modules it speaks of. Keras has a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from .documented import EXAMPLES, check_docstrings, run

NEEDS = {"Hugging Face Trainer": "transformers", "Lightning": "lightning"}  # others have their name there


def needs(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed (make clients)")


@pytest.mark.parametrize("library", [name for name in EXAMPLES if name != "Keras"])
def test_the_example_runs(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(NEEDS.get(library, library))
    monkeypatch.chdir(tmp_path)
    run(library)


def test_there_is_one_for_each() -> None:
    assert list(EXAMPLES) == ["Lightning", "Hugging Face Trainer", "accelerate", "skorch", "timm", "Keras"]


@pytest.mark.parametrize("name", NEEDS.values())
def test_the_docstrings(name: str) -> None:
    needs(name)
    check_docstrings(f"fused_penalty.{name}")
