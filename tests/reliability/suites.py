"""Promises that tests of this suite keep: they are run by pytest, and what passed is counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .promises import ROOT, TESTS, Counts, Found


def suite(files: tuple[str, ...], figure: str, at_least: int = 1) -> Callable[[Counts], Found]:
    """`figure` is a text with {passed} and {examples}."""

    def prove(counts: Counts) -> Found:
        missing = [f for f in files if not (TESTS / f.split("::")[0]).exists()]
        if missing:
            return Found(f"there is no {', '.join(missing)}", False)
        passed, summary = run([TESTS / f for f in files], counts.examples)
        if not passed:
            return Found(summary, passed)  # failed, or all skipped
        enough = "" if passed >= at_least else f", fewer than {at_least:,}"
        return Found(figure.format(passed=f"{passed:,}", examples=f"{counts.examples:,}") + enough, not enough)

    return prove


def run(files: list[Path], examples: int) -> tuple[int | None, str]:
    """How many tests passed, False where one failed, None where all were skipped; and pytest's last line."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "FUSED_PENALTY_EXAMPLES": str(examples)},
    )  # fmt: skip
    summary = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
    passed = re.search(r"(\d+) passed", summary)
    return (False if done.returncode else int(passed[1]) if passed else None), summary


misuse = suite(("misuse/test_misuse.py::test_misuse",), "{passed} wrong calls, each with its message", at_least=400)
files = suite(
    ("checkpoint/test_files.py", "checkpoint/test_names.py"), "{passed} tests of files, changes, headers and names"
)
sanitizers = suite(
    ("kernels/test_sanitizers.py",), "{passed} runs under ASan, UBSan and TSan clean, seeded faults found"
)
layouts = suite(("torch_only/test_layouts.py",), "{passed} tests, {examples} random lists")
