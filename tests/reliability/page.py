"""The page docs/reliability.md, and the same as a table in the terminal."""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from .promises import ROOT, Found, Promise

PAGE = ROOT / "docs" / "reliability.md"
HEAD = """# Reliability

What is promised, and what came out when it was tried. `make reliability` writes this page; the proofs are in
`tests/reliability`, and `make test` runs each of them with smaller counts.
"""
MODES_HEAD = """## Modes

Every verb under every mode that can be switched on: right, or refused with a remedy
(`tests/torch_only/test_modes.py`, `tests/jax_only/test_modes.py`).
"""
Rows = Sequence[tuple[Promise, Found]]


def modes() -> dict[str, Mapping[str, str]]:
    """By framework: a mode's name to "right" or "refused: reason and remedy"; its tests see to it that this is true."""
    found = {}
    for framework, file in (("PyTorch", "tests.torch_only.test_modes"), ("JAX", "tests.jax_only.test_modes")):
        found[framework] = importlib.import_module(file).MODES
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def render(machine: Mapping[str, Any], rows: Rows, modes: Mapping[str, Mapping[str, str]], day: datetime.date) -> str:
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items() if k in ("torch", "jax", "jaxlib", "numpy"))
    parts = [
        HEAD,
        f"{day.isoformat()}: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; "
        f"Python {machine['python']}, {packages}.\n",
        table(("promise", "tried", "verdict"), [(p.text, f.figure, f.verdict) for p, f in rows]) + "\n",
    ]
    if modes:
        parts.append(MODES_HEAD)
    for framework, outcomes in modes.items():
        parts.append(table((framework, "every verb"), list(outcomes.items())) + "\n")
    return "\n".join(parts)


def show(rows: Rows) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table("promise", "tried", "verdict", show_lines=True)
    for p, f in rows:
        style = {True: "green", False: "bold red", None: "yellow"}[f.kept]
        shown.add_row(Text(p.text), Text(f.figure), Text(f.verdict, style))
    Console().print(shown)
