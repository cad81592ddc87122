"""The tables: what was measured, and what was claimed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.contenders.table import NAIVE
from benchmarks.harness.machine import QUIET
from benchmarks.harness.results import Key, Result
from benchmarks.models.cases import CALLS, DTYPES, MODELS
from benchmarks.report import sizes
from benchmarks.report.claims import Claim

WIDTH = 132
FULL_ONLY = "BENCH=full"  # ends the reason of a case that the default run leaves out
STYLE: dict[str, Any] = {"width": WIDTH, "pad_edge": False, "box": box.SIMPLE_HEAD, "collapse_padding": True}
TITLES = {
    "forward": "FORWARD",
    "gradient": "VALUE AND FRESH GRADIENTS",
    "inplace": "IN PLACE: gradients that exist, or the parameters themselves",
    "step": "WHOLE SGD STEP, donated / in place",
    "optimizer": "OPTIMIZER'S STEP, with the penalty in it (ours), beside it, without one",
    "overhead": "CALLS WITHOUT JIT, small leaves",
    "first forward": "FIRST CALL, forward",
    "first gradient": "FIRST CALL, value and gradient",
    "first optimizer": "FIRST CALL, an optimizer's step",
}
LIMITS = {"forward": ("torch", "read limit"), "gradient": ("torch", "copy limit")}
CAPTION = """\
GB/s: bytes of the parameters, counted once, over the median time. \
x naive: times faster than torch eager or JAX jit (JAX eager where jit would compile for minutes). \
of limit: forward, of one torch.sum over one buffer of the same bytes; gradient, of one copy into an existing buffer; \
step, of the step without a penalty; optimizer, of torch's fused one without a penalty. \
launches: calls over parameter data as written; a compiler may merge some. \
error: relative, against float64. temp: XLA's temporary memory. peak: resident memory that the \
first call added, compiler included. faults: pages that the kernel handed out in one call. \
The step's times are the best of its runs."""


def show(console: Console, results: dict[Key, Result], found: list[Claim], machine: dict[str, Any], full: bool) -> None:
    console.print(_times(results, machine, full))
    if (by_size := sizes.table(results, STYLE)) is not None:
        console.print(by_size)
    console.print(_claims(found, machine["cores_used_by_others"]))


def _times(results: dict[Key, Result], machine: dict[str, Any], full: bool) -> Table:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    title = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}\n{packages}"
    more = "" if full else " full: only measured by `BENCH=full make bench`, as it takes minutes to compile or run."
    table = Table(title=title, caption=CAPTION + more, caption_justify="left", **STYLE)
    table.add_column("case", no_wrap=True)
    table.add_column("launches", justify="right", no_wrap=True)
    for dtype in ("f32", "bf16"):
        for head in (f"{dtype}\nms", "\nGB/s", "x\nnaive", "of\nlimit"):
            table.add_column(head, justify="right", no_wrap=True)
    table.add_column("notes", overflow="fold", ratio=1)
    for verb, heading in TITLES.items():
        if not any(r.verb == verb for r in results.values()):
            continue
        table.add_section()
        table.add_row(f"[bold]{heading}")
        for model in (*MODELS, *CALLS):
            rows = [r for r in results.values() if (r.verb, r.model) == (verb, model)]
            for cells in _block(results, verb, model, rows):
                table.add_row(*cells)
    return table


def _block(results: dict[Key, Result], verb: str, model: str, rows: list[Result]) -> Iterator[list[str]]:
    """The rows of one model: one per contender, its dtypes side by side."""
    if not rows:
        return
    if not any(r.median_ms for r in rows):  # nothing ran: one row says why
        reasons = dict.fromkeys(r.skipped for r in rows if FULL_ONLY not in r.skipped) or [FULL_ONLY]
        yield [f"[cyan]{model}", *[""] * 9, f"[dim]{'; '.join(reasons)}"]
        return
    size = next(r.notes for r in rows if r.notes)
    leaves = "1 leaf" if size["leaves"] == 1 else f"{size['leaves']:,} leaves"
    yield [f"[cyan]{model}[/] [dim]{leaves}, {size['elements'] / 1e6:.3g} M elements"]
    for framework, name in dict.fromkeys((r.framework, r.name) for r in rows):
        pair = [results.get((verb, framework, name, model, dtype)) for dtype in DTYPES]
        some = next(r for r in pair if r)
        style = "[bold green]" if name.startswith("ours") else ""
        numbers = [cell for r in pair for cell in _numbers(results, r)]
        launches = next((f"{r.notes['launches']:,}" for r in pair if r and "launches" in r.notes), "")
        yield [f"  {style}{some.framework} {name}", launches, *numbers, _notes([r for r in pair if r])]


def _numbers(results: dict[Key, Result], r: Result | None) -> list[str]:
    if r is None or r.median_ms is None:
        return ["[dim]full" if r and FULL_ONLY in r.skipped else "", "", "", ""]
    naive = (peer(results, r, r.framework, name) for name in (*NAIVE[r.framework], "naive"))
    base = next((t for t in naive if t), None)
    limit = peer(results, r, "torch", LIMITS[r.verb][1]) if r.verb in LIMITS else None
    if r.verb == "step":
        limit = peer(results, r, r.framework, "no penalty")
    if r.verb == "optimizer":
        limit = peer(results, r, r.framework, f"{r.name.split()[0]} torch fused")
    return [
        f"{r.median_ms:.4g}" if r.median_ms < 1e4 else f"{r.median_ms:.0f}",
        f"{r.gb_per_s:.1f}" if r.verb in ("forward", "gradient") else "",
        f"{base / r.median_ms:.2f}" if base else "",
        f"{limit / r.median_ms:.2f}" if limit else "",
    ]


def peer(results: dict[Key, Result], r: Result, framework: str, name: str) -> float | None:
    """The median of another contender of the same case."""
    found = results.get((r.verb, framework, name, r.model, r.dtype))
    return found.median_ms if found else None


def _notes(rows: list[Result]) -> str:
    found = []
    for key, show in (
        ("relative_error", lambda v: f"error {v:.0e}"),
        ("temporary_bytes", lambda v: f"temp {v / 2**20:.1f} MiB"),
        ("peak_bytes", lambda v: f"peak +{v / 2**20:.0f} MiB"),
        ("minor_faults", lambda v: f"faults {v:,}"),
    ):
        values = [show(r.notes[key]) for r in rows if r.notes.get(key) is not None]
        if values:
            word = values[0].rsplit(" ")[0]
            found.append(", ".join([values[0], *(v.removeprefix(word + " ") for v in values[1:])]))
    found += dict.fromkeys(f"[dim]{r.skipped}[/]" for r in rows if r.skipped and FULL_ONLY not in r.skipped)
    return "; ".join(found)


def _claims(found: list[Claim], others: float) -> Table:
    noisy = others > QUIET
    warning = f"Other programs used {others:.2g} cores meanwhile: measure again on a quiet machine." if noisy else ""
    table = Table(title="claims", caption=f"[bold red]{warning}", **STYLE)
    table.add_column("claim")
    table.add_column("target", justify="right")
    table.add_column("measured", justify="right")
    table.add_column("")
    for c in found:
        colour = "bold red" if c.verdict == "miss" else "green"
        doubt = ", but noisy" if noisy and c.timed and c.verdict else ""
        table.add_row(c.text, c.target, c.measured, f"[{colour}]{c.verdict}[/]{doubt}")
    return table
