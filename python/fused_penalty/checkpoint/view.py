"""A checkpoint's report as a table and as a picture."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .report import Report, Row

COLUMNS = {"size": "size", "abs": "Σ|x|", "square": "Σx²", "max": "max|x|", "zeros": "zeros", "nonfinite": "non-finite"}
LABELLED = 150  # leaves whose names fit beside a picture


def show(report: Report, console: Console) -> None:
    """The table with its total, and what was skipped."""
    table = Table(title=str(report.file), title_justify="left", show_footer=True)
    total = _cells(report.total)
    table.add_column("leaf", footer=f"total of {len(report.rows):,}", overflow="fold")
    table.add_column("dtype")
    table.add_column("shape")
    for name, heading in COLUMNS.items():
        table.add_column(heading, footer=total[name], justify="right", no_wrap=True)
    for row in report.rows:
        style = "bold red" if row.nonfinite else None
        table.add_row(row.path, row.dtype, "×".join(map(str, row.shape)), *_cells(row).values(), style=style)
    console.print(table)
    for entry, reason in report.skipped:
        text = f"skipped: {entry.path} ({entry.dtype} {list(entry.shape)}): {reason}"
        console.print(text, highlight=False, markup=False)


def _cells(row: Row) -> dict[str, str]:
    share = f" ({row.zeros / row.size:.1%})" if row.zeros else ""
    return {
        "size": f"{row.size:,}",
        **{name: f"{getattr(row, name):.5g}" for name in ("abs", "square", "max")},
        "zeros": f"{row.zeros:,}{share}",
        "nonfinite": f"{row.nonfinite:,}",
    }


def plot(report: Report, file: Path) -> None:
    """Mean, root mean square and maximum of |x| of each leaf, and its share of zeros, in the order of the table."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")  # no display is needed
    rows = [row for row in report.rows if row.size]
    height = min(max(3.0, 0.17 * len(rows) + 1.5), 30.0)
    figure, (sizes, zeros) = plt.subplots(
        1, 2, figsize=(11, height), sharey=True, layout="constrained", width_ratios=(3, 1)
    )
    at = range(len(rows))
    for label, marker, values in (
        ("mean |x|", "o", [row.abs / row.size for row in rows]),
        ("root mean square", "x", [math.sqrt(row.square / row.size) for row in rows]),
        ("max |x|", ">", [row.max for row in rows]),
    ):
        shown = [v if math.isfinite(v) and v > 0 else math.nan for v in values]
        sizes.plot(shown, at, marker, markersize=4, label=label)
    sizes.set(xscale="log", xlabel="|x|", title=report.file.name)
    sizes.grid(axis="x", alpha=0.3)
    sizes.legend()
    zeros.barh(at, [100 * row.zeros / row.size for row in rows], color="#7d3c98")
    zeros.set(xlabel="zeros (%)", xlim=(0, 100))
    names = [row.path + (" (non-finite)" if row.nonfinite else "") for row in rows]
    sizes.set_yticks(at, names, fontsize=6) if len(rows) <= LABELLED else sizes.set(ylabel="leaf")
    sizes.set_ylim(len(rows) - 0.5, -0.5)
    figure.savefig(file, dpi=120)
    plt.close(figure)
