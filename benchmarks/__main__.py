"""python -m benchmarks [pytest's -k EXPRESSION]: measures, prints the tables, writes benchmarks/results/.

The default run ends within 5 minutes on 2 cores; BENCH=full runs every case with more rounds and may
take two hours: a naive sum over 2,000 leaves alone compiles for minutes, in each of its forms.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.harness import machine, results
from benchmarks.harness.measure import FULL
from benchmarks.harness.progress import Progress
from benchmarks.report import charts
from benchmarks.report import tables as report
from benchmarks.report.claims import claims

HERE = Path(__file__).parent
FOLDER = HERE / "results"


def main(arguments: list[str]) -> int:
    console = Console(width=max(Console().width, report.WIDTH))
    described, others, start = machine.describe(), machine.Others(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, Progress(console) as progress:
        raw = Path(scratch) / "raw.json"  # pytest-benchmark's own file names the host: it does not stay
        options = ["--benchmark-only", "--benchmark-quiet", f"--benchmark-json={raw}", "-q", "--no-header"]
        code = pytest.main([str(HERE), *options, *arguments], plugins=[progress])
        found = results.collect(raw, progress.absent)
    if not found:
        return int(code)
    seconds = round(time.monotonic() - start, 1)
    described["cores_used_by_others"] = round(others.cores(), 2)
    judged = claims(found)
    report.show(console, found, judged, described, FULL)
    FOLDER.mkdir(exist_ok=True)
    results.save(
        FOLDER / "results.json", found, bench="full" if FULL else "default", machine=described,
        seconds=seconds,
        claims=[{"claim": c.text.strip(), "target": c.target, "measured": c.value, "unit": c.unit.strip(),
                 "verdict": c.verdict} for c in judged],
    )  # fmt: skip
    drawn = charts.draw(found, FOLDER, machine.caption(described))
    names = ", ".join(file.name for file in [FOLDER / "results.json", *drawn])
    console.print(f"{seconds:.0f} s; benchmarks/results/: {names}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
