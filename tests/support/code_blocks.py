"""The code of the README and of docs/, block by block. Each runs alone, as it does for a reader who copies it."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from .paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# Not in the environment of `make test`, but in that of `make clients`.
CLIENTS = {"accelerate", "keras", "lightning", "skorch", "timm", "transformers"}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # of its first line in the page
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def clients(self) -> set[str]:
        """Libraries of `make clients` that it imports."""
        return set(re.findall(r"^(?:import|from) (\w+)", self.text, re.MULTILINE)) & CLIENTS

    def run(self) -> None:
        """Errors have the page's own line numbers."""
        tree = ast.increment_lineno(ast.parse(self.text), self.line - 1)
        exec(compile(tree, str(self.page), "exec"), {"__name__": "page"})


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[2] == language:
                line = text.count("\n", 0, match.start(3)) + 1
                found.append(Block(page, line, language, textwrap.dedent(match[3])))
    return found
