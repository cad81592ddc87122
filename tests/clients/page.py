"""docs/trainers.md: its examples, by the headings above them."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "trainers.md"
_EXAMPLE = re.compile(r"^## (.+?)\n\n```python\n(.*?)```", re.MULTILINE | re.DOTALL)
EXAMPLES: dict[str, str] = dict(_EXAMPLE.findall(PAGE.read_text()))


def run(library: str) -> None:
    exec(compile(EXAMPLES[library], f"{PAGE.name}: {library}", "exec"), {"__name__": "page"})
