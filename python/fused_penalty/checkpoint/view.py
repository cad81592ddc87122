"""A checkpoint's report as a table, which fits the width of the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .names import printable
from .report import Report, Row
from .summary import ROWS

LEAF = 32  # characters that the column of leaves has at least, if a path is so long


class Column(NamedTuple):
    """A heading, and how a row is formatted where there is room, and where there is not."""

    heading: str
    wide: Callable[[Row], str]
    narrow: Callable[[Row], str]


Cells: TypeAlias = Sequence[tuple[str, Callable[[Row], str]]]
"""Headings, and what formats a row."""


def _number(name: str, digits: int) -> Callable[[Row], str]:
    return lambda row: f"{getattr(row, name):.{digits}g}"


def _zeros(row: Row) -> str:
    return f"{row.zeros:,}" + (f" ({row.zeros / row.size:.1%})" if row.zeros else "")


def _share(row: Row) -> str:
    if 0 < row.zeros < 0.001 * row.size:
        return "<0.1%"
    return f"{row.zeros / row.size:.1%}" if row.zeros else "0"


def _shape(row: Row) -> str:
    return f"{row.leaves:,} leaves" if row.shape is None else "×".join(map(str, row.shape))


def short_count(n: int) -> str:
    """Three digits and a unit.

    >>> [short_count(n) for n in (0, 999, 1000, 23_440_896, 7_241_732_096)]
    ['0', '999', '1.00k', '23.4M', '7.24G']
    """
    value, units = float(n), iter(("", "k", "M", "G", "T", "P"))
    unit = next(units)
    while value >= 999.5 and unit != "P":
        value, unit = value / 1000, next(units)
    return f"{n}" if unit == "" else f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"


COLUMNS = (
    Column("dtype", lambda row: row.dtype, lambda row: row.dtype),
    Column("shape", _shape, _shape),
    Column("size", lambda row: f"{row.size:,}", lambda row: short_count(row.size)),
    Column("Σ|x|", _number("abs", 5), _number("abs", 3)),
    Column("Σx²", _number("square", 5), _number("square", 3)),
    Column("max|x|", _number("max", 5), _number("max", 3)),
    Column("zeros", _zeros, _share),
    Column("non-finite", lambda row: f"{row.nonfinite:,}", lambda row: short_count(row.nonfinite)),
)


def show(report: Report, console: Console) -> None:
    """The names of the files, the table with its total, and what was skipped."""
    title = printable(report.file) + ("" if report.against is None else f" - {printable(report.against)}")
    console.print(Text(title), style="italic", soft_wrap=True)  # a title would be cut where the table ends
    shown = report.rows[:ROWS]
    console.print(_table(shown, report.total, console.width))
    if len(shown) < len(report.rows):
        console.print(f"and {len(report.rows) - ROWS:,} more: --depth groups them, --sort chooses, --json has them all")
    elif len(report.rows) < report.total.leaves:
        console.print(f"{report.total.leaves:,} leaves in groups whose paths begin alike: --depth; --json has them all")
    for entry, reason in report.skipped[:ROWS]:
        text = f"skipped: {entry.path} ({entry.dtype} {list(entry.shape)}): {reason}"
        console.print(_text(text), soft_wrap=True)
    if len(report.skipped) > ROWS:
        console.print(f"and {len(report.skipped) - ROWS:,} more that were skipped: --json has them all")


def _table(rows: Sequence[Row], total: Row, width: int) -> Table:
    """With borders and all digits; else without them; else without dtypes and shapes, the paths folded."""
    wide = [(c.heading, c.wide) for c in COLUMNS]
    if _needs(rows, total, wide, gap=3) <= width:
        return _filled(Table(show_footer=True), rows, total, wide)
    narrow = [("NaN/inf" if c.heading == "non-finite" else c.heading, c.narrow) for c in COLUMNS]
    if _needs(rows, total, narrow, gap=2) > width:
        narrow = [(heading, cell) for heading, cell in narrow if heading not in ("dtype", "shape")]
    table = Table(show_footer=True, box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    return _filled(table, rows, total, narrow)


def _needs(rows: Sequence[Row], total: Row, columns: Cells, gap: int) -> int:
    """The width with room for all numbers, and LEAF characters of the paths if they are so long."""
    longest = max((cell_len(printable(row.path)) for row in rows), default=0)
    needed = gap * (len(columns) + 1) + 1 + max(min(longest, LEAF), len(_total(total)))
    return needed + sum(max(len(heading), *(cell_len(cell(r)) for r in (*rows, total))) for heading, cell in columns)


def _total(total: Row) -> str:
    return f"total of {total.leaves:,}"


def _filled(table: Table, rows: Sequence[Row], total: Row, columns: Cells) -> Table:
    table.add_column("leaf", footer=_total(total), overflow="fold")
    for heading, cell in columns:
        if heading in ("dtype", "shape"):
            table.add_column(heading)
        else:
            table.add_column(heading, footer=cell(total), justify="right", no_wrap=True)
    for row in rows:
        cells = (cell(row) for _, cell in columns)
        table.add_row(_text(row.path), *cells, style="bold red" if row.nonfinite else None)
    return table


def _text(name: object) -> Text:
    """Plain text: in a str rich would interpret [brackets] and :names:."""
    return Text(printable(name))
