"""What is written about training libraries: the examples of docs/trainers.md, and the docstrings of their modules."""

from __future__ import annotations

import doctest
import importlib
import re

from tests.core.test_docstrings import faults, nameless
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "trainers.md"
_EXAMPLE = re.compile(r"^## (.+?)\n\n```python\n(.*?)```", re.MULTILINE | re.DOTALL)
EXAMPLES: dict[str, str] = dict(_EXAMPLE.findall(PAGE.read_text()))  # by the heading above


def run(library: str) -> None:
    exec(compile(EXAMPLES[library], f"{PAGE.name}: {library}", "exec"), {"__name__": "page"})


def check_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    for public in module.__all__:
        f = getattr(module, public)
        assert faults(f, f"{name}.{public}") == []
        assert nameless(f) == set()
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
