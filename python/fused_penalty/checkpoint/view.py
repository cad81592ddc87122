"""A checkpoint's report as a table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .names import printable
from .report import Report, Row

COLUMNS = {"size": "size", "abs": "Σ|x|", "square": "Σx²", "max": "max|x|", "zeros": "zeros", "nonfinite": "non-finite"}


def show(report: Report, console: Console) -> None:
    """The file's name, the table with its total, and what was skipped."""
    table = Table(show_footer=True)
    total = _cells(report.total)
    table.add_column("leaf", footer=f"total of {len(report.rows):,}", overflow="fold")
    table.add_column("dtype")
    table.add_column("shape")
    for name, heading in COLUMNS.items():
        table.add_column(heading, footer=total[name], justify="right", no_wrap=True)
    for row in report.rows:
        style = "bold red" if row.nonfinite else None
        table.add_row(_text(row.path), row.dtype, "×".join(map(str, row.shape)), *_cells(row).values(), style=style)
    console.print(_text(report.file), style="italic", soft_wrap=True)  # a title would be cut where the table ends
    console.print(table)
    for entry, reason in report.skipped:
        text = f"skipped: {entry.path} ({entry.dtype} {list(entry.shape)}): {reason}"
        console.print(_text(text), soft_wrap=True)


def _text(name: object) -> Text:
    """Plain text: in a str rich would interpret [brackets] and :names:."""
    return Text(printable(name))


def _cells(row: Row) -> dict[str, str]:
    share = f" ({row.zeros / row.size:.1%})" if row.zeros else ""
    return {
        "size": f"{row.size:,}",
        **{name: f"{getattr(row, name):.5g}" for name in ("abs", "square", "max")},
        "zeros": f"{row.zeros:,}{share}",
        "nonfinite": f"{row.nonfinite:,}",
    }
