"""A checkpoint's report as a picture."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .._core.errors import bad
from .names import printable
from .report import Report, Row
from .summary import ROWS

LABELLED = 150  # so many names of leaves fit beside a picture


def check_target(file: Path) -> None:
    """Raise what `plot` would raise about the file's format and folder, before anything has been read."""
    formats = Figure().canvas.get_supported_filetypes()
    name, ending = printable(file), file.suffix.removeprefix(".").lower()
    if ending not in formats:
        raise bad(
            ValueError, "--plot", f"{name} does not end in a format that matplotlib writes",
            f"End it in one of {', '.join(sorted(formats))}",
        )  # fmt: skip
    if file.is_dir():
        raise bad(IsADirectoryError, "--plot", f"{name} is a folder", "Give the picture a name in it")
    if not file.parent.is_dir():
        raise bad(
            FileNotFoundError, "--plot", f"there is no folder {printable(file.parent)}", "Make it, or choose another"
        )  # fmt: skip
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise bad(PermissionError, "--plot", f"{name} may not be written", "Choose another folder or name")


def plot(report: Report, file: Path) -> None:
    """Mean, root mean square and maximum of |x| of each leaf, and its share of zeros, in the order of the table."""
    # Names are plain text, neither mathematics nor TeX, whatever their dollar signs and the user's settings say; a
    # character that the font lacks is a box.
    with mpl.rc_context({"text.usetex": False, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        _draw(report).savefig(file, dpi=120)


def _draw(report: Report) -> Figure:
    rows = [row for row in report.rows[:ROWS] if row.size]
    figure = Figure(figsize=(11, min(max(3.0, 0.17 * len(rows) + 1.5), 30.0)), layout="constrained")
    sizes, zeros = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    _draw_sizes(sizes, rows)
    against = "" if report.against is None else f" - {report.against.name}"
    sizes.set_title(printable((report.file.name or str(report.file)) + against))
    zeros.barh(range(len(rows)), [100 * row.zeros / row.size for row in rows], color="#7d3c98")
    zeros.set(xlabel="zeros (%)", xlim=(0, 100))
    if len(rows) <= LABELLED:
        names = [printable(row.path) + (" (non-finite)" if row.nonfinite else "") for row in rows]
        sizes.set_yticks(range(len(rows)), names, fontsize=6)
    else:
        sizes.set_ylabel("leaf")
    sizes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    return figure


def _draw_sizes(axes: Any, rows: Sequence[Row]) -> None:
    for label, marker, values in (
        ("mean |x|", "o", [row.abs / row.size for row in rows]),
        ("root mean square", "x", [math.sqrt(row.square / row.size) for row in rows]),
        ("max |x|", ">", [row.max for row in rows]),
    ):
        shown = [v if math.isfinite(v) and v > 0 else math.nan for v in values]
        axes.plot(shown, range(len(rows)), marker, markersize=4, label=label)
    axes.set(xscale="log", xlabel="|x|")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
