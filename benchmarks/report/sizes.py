"""The table and the picture of one leaf's sizes: ours beside torch's pass over the same buffer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
from rich.table import Table

from benchmarks.contenders.sizes import PAIRS, THREADS, key
from benchmarks.harness.results import Key, Result
from benchmarks.models.cases import DTYPES, SIZES
from benchmarks.report.figures import OURS, PEER, finish, plain

LINES = {"1 thread": "--", "all threads": "-"}


def _rates(results: dict[Key, Result], name: str, threads: str, dtype: str) -> dict[str, float]:
    """GB/s by size."""
    found = ((size, results.get(("sizes", "torch", key(name, threads), size, dtype))) for size in SIZES)
    return {size: r.gb_per_s for size, r in found if r and r.gb_per_s}


def share(results: dict[Key, Result], ours: str, threads: str, size: str, dtype: str) -> float | None:
    """Our speed over torch's."""
    mine, theirs = (_rates(results, name, threads, dtype).get(size) for name in (ours, PAIRS[ours]))
    return mine / theirs if mine and theirs else None


def scaling(results: dict[Key, Result], ours: str, size: str, dtype: str) -> float | None:
    """All threads over one."""
    one, every = (_rates(results, ours, threads, dtype).get(size) for threads in THREADS)
    return every / one if one and every else None


def table(results: dict[Key, Result], style: dict[str, object]) -> Table | None:
    """GB/s of torch and of ours, and the share, for each size."""
    rows = list(_rows(results))
    if not rows:
        return None
    made = Table(
        title="ONE LEAF UNDER PYTORCH, GB/s: torch's sum, mul_ and add_ / our sums, prox_ and add_grad_, and our share",
        **style,
    )  # type: ignore[arg-type]
    made.add_column("pass", no_wrap=True)
    for size in SIZES:
        made.add_column(size, justify="right", no_wrap=True)
    for cells in rows:
        made.add_row(*cells)
    return made


def _rows(results: dict[Key, Result]) -> Iterator[list[str]]:
    for ours, peer in PAIRS.items():
        for dtype in DTYPES:
            for threads in THREADS:
                mine, theirs = (_rates(results, name, threads, dtype) for name in (ours, peer))
                if not mine:
                    continue
                cells = [
                    f"{theirs[size]:.3g} / {mine[size]:.3g} [bold]{mine[size] / theirs[size]:.2f}[/]"
                    if size in mine and size in theirs else ""
                    for size in SIZES
                ]  # fmt: skip
                yield [f"{ours.removeprefix('ours ')}, {dtype}, {threads}", *cells]


def draw(results: dict[Key, Result], file: Path, machine: str) -> Path | None:
    """A panel for each pass and dtype: GB/s against the size."""
    panels = [(ours, dtype) for ours in PAIRS for dtype in DTYPES if _rates(results, ours, "all threads", dtype)]
    if not panels:
        return None
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), squeeze=False)
    for axis, (ours, dtype) in zip(axes.flat, panels, strict=True):
        for name, colour in ((PAIRS[ours], PEER), (ours, OURS)):
            for threads, line in LINES.items():
                rates = _rates(results, name, threads, dtype)
                axis.plot([SIZES[s] / 2**20 for s in rates], list(rates.values()), line, color=colour, marker="o",
                          markersize=4, label=f"{name}, {threads}")  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("MiB of one leaf", fontsize=8)
        axis.set_ylabel("GB/s of the leaf", fontsize=8)
        axis.set_title(dtype, fontsize=10, loc="left")
        axis.legend(fontsize=7, frameon=False)
        plain(axis)
    return finish(figure, file, "One leaf under PyTorch, beside torch's pass over the same buffer", machine)
