"""The pictures of the results: forward bandwidth against the read limit, the whole step, the sizes of one leaf."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.harness.results import Key, Result
from benchmarks.models.cases import DTYPES, MODELS
from benchmarks.report import sizes
from benchmarks.report.figures import LIMIT, OURS, PEER, finish, plain

HALO = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # keeps a number readable on the line


def draw(results: dict[Key, Result], folder: Path, machine: str) -> list[Path]:
    """Writes what the results have data for; returns the files."""
    plt.switch_backend("Agg")  # no display is needed
    drawn = [_forward(results, dtype, folder / f"forward_{dtype}.png", machine) for dtype in DTYPES]
    drawn.append(_step(results, folder / "step.png", machine))
    drawn.append(sizes.draw(results, folder / "sizes.png", machine))
    return [file for file in drawn if file]


def _forward(results: dict[Key, Result], dtype: str, file: Path, machine: str) -> Path | None:
    panels = {m: [r for r in _ran(results, "forward", m, dtype) if r.name != "read limit"] for m in MODELS}
    panels = {model: rows for model, rows in panels.items() if rows}
    if not panels:
        return None
    figure, axes = _grid(len(panels), 2.9)
    for axis, (model, rows) in zip(axes, panels.items(), strict=True):
        _bars(axis, rows, [r.gb_per_s or 0.0 for r in rows], "{:.3g}")
        limit = results.get(("forward", "torch", "read limit", model, dtype))
        if limit and limit.gb_per_s:
            _line(axis, limit.gb_per_s, f"read limit {limit.gb_per_s:.3g} GB/s")
            axis.set_xlim(0, 1.15 * max(limit.gb_per_s, *(r.gb_per_s or 0.0 for r in rows)))
        notes = rows[0].notes
        leaves = "1 leaf" if notes["leaves"] == 1 else f"{notes['leaves']:,} leaves"
        axis.set_title(f"{model}: {leaves}, {notes['bytes'] / 1e6:.0f} MB", fontsize=10, loc="left")
        axis.set_xlabel("GB/s (parameters read once / median time); longer is better", fontsize=8)
    return finish(figure, file, f"Elastic-net penalty, forward, {dtype}", machine)


def _step(results: dict[Key, Result], file: Path, machine: str) -> Path | None:
    panels = {}
    for model in MODELS:
        for framework in ("jax", "torch"):
            rows = [r for r in _ran(results, "step", model, DTYPES[0]) if r.framework == framework]
            if rows:
                panels[model, framework] = rows
    if not panels:
        return None
    figure, axes = _grid(len(panels), 2.6)
    for axis, ((model, framework), rows) in zip(axes, panels.items(), strict=True):
        times = [r.median_ms or 0.0 for r in rows]
        _bars(axis, rows, times, "{:.3g}")
        none = next((r.median_ms for r in rows if r.name == "no penalty"), None)
        if none:
            _line(axis, none, f"without a penalty {none:.3g} ms")
        axis.set_xlim(0, 1.15 * max(times))
        axis.set_title(f"{model}, {framework}", fontsize=10, loc="left")
        axis.set_xlabel("ms (median, best run); shorter is better", fontsize=8)
    return finish(figure, file, "Whole SGD step, float32, donated (JAX) or in place (torch)", machine)


def _grid(count: int, height: float) -> tuple[plt.Figure, list[Axes]]:
    """Two panels a row."""
    rows = -(-count // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(12, height * rows + 0.4), squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def _ran(results: dict[Key, Result], verb: str, model: str, dtype: str) -> list[Result]:
    return [r for r in results.values() if (r.verb, r.model, r.dtype) == (verb, model, dtype) and r.median_ms]


def _bars(axis: Axes, rows: list[Result], values: list[float], number: str) -> None:
    """One horizontal bar a contender, in the table's order from the top; ours stand out."""
    colours = [OURS if r.name.startswith("ours") else PEER for r in rows]
    bars = axis.barh([f"{r.framework} {r.name}" for r in rows], values, color=colours, height=0.7)
    axis.bar_label(bars, [number.format(v) for v in values], padding=3, fontsize=8, bbox=HALO)
    axis.set_ylim(max(len(rows), 5) - 0.5, -0.5)  # the first on top, and no fat bars where there are few
    plain(axis)


def _line(axis: Axes, x: float, text: str) -> None:
    """The bound to compare with; its text stands over the panel, where no bar can be."""
    axis.axvline(x, color=LIMIT, linestyle="--", linewidth=1.5)
    axis.set_title(f"- - {text}", fontsize=9, loc="right", color=LIMIT)
