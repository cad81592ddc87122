"""The modules of training libraries: each has an example in docs/trainers.md (test_docs.py runs it), and docstrings.
Keras has a process of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from .documented import EXAMPLES, check_docstrings


def test_there_is_one_for_each() -> None:
    assert list(EXAMPLES) == ["Lightning", "Hugging Face Trainer", "accelerate", "skorch", "timm", "Keras"]


@pytest.mark.parametrize("name", ["transformers", "lightning"])
def test_the_docstrings(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed (make clients)")
    check_docstrings(f"fused_penalty.{name}")
