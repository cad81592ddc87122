"""A report with so many rows that no one reads them: leaves whose paths begin alike become one row."""

from __future__ import annotations

from dataclasses import replace

from .report import Report, Row

ROWS = 1000  # of a table that is shown whole


def grouped(report: Report, depth: int) -> Report:
    """One row for all leaves whose paths have the same first `depth` steps; shorter paths keep their rows."""
    rows: dict[str, Row] = {}
    for row in report.rows:
        steps = row.path.split(".")
        if len(steps) <= depth:
            rows[row.path] = row
            continue
        path = ".".join([*steps[:depth], "*"])
        group = rows.get(path)
        if group is None:
            group = rows[path] = Row(path, row.dtype, None, leaves=0)
        group.leaves += 1
        group.dtype = group.dtype if group.dtype == row.dtype else "mixed"
        group.add_row(row)
    return replace(report, rows=list(rows.values()))


def short(report: Report) -> Report:
    """The report itself if it is short; else grouped at the greatest depth that makes it so, if there is one."""
    if len(report.rows) <= ROWS:
        return report
    paths = [row.path.split(".") for row in report.rows]
    fitting = 0
    for depth in range(1, max(map(len, paths))):
        if len({(*steps[:depth], len(steps) > depth) for steps in paths}) > ROWS:
            break
        fitting = depth
    return grouped(report, fitting) if fitting else report
