"""How every case is timed, and what it writes down about itself."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from benchmarks.models.cases import Tree

FULL = os.environ.get("BENCH") == "full"
SECONDS, LEAST, MOST = (2.0, 10, 300) if FULL else (0.3, 5, 60)  # a case's rounds: what fits, within bounds
SLOW = 0.7  # seconds: a call so slow is not repeated often


def cases(rows: Iterable[Any], models: Iterable[str], dtypes: Iterable[str]) -> list[Any]:
    """pytest's parameters (tree, row) for models x dtypes x rows; a case that does not run is skipped with its
    reason, which the table then shows in its place."""
    found = []
    for model, dtype, row in itertools.product(models, dtypes, rows):
        reason = row.skip(model, dtype, FULL)
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        found.append(pytest.param((model, dtype), row, marks=marks, id=f"{model}-{dtype}-{row.framework} {row.name}"))
    return found


def measure(benchmark: Any, tree: Tree, call: Callable[[], object], **notes: object) -> None:
    """Two calls to warm up, then as many rounds as SECONDS hold. No result is kept: memory that it holds would be
    memory that the next call has to fetch anew."""
    call()
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    least = LEAST if once < SLOW else 3
    rounds = int(min(MOST, max(least, SECONDS / max(once, 1e-9))))
    note(benchmark, tree, **notes)
    gc.collect()
    gc.disable()
    try:
        benchmark.pedantic(call, rounds=rounds)
    finally:
        gc.enable()


def note(benchmark: Any, tree: Tree, **notes: object) -> None:
    benchmark.group = f"{tree.model} {tree.dtype}"
    benchmark.extra_info.update(bytes=tree.bytes, elements=tree.elements, leaves=len(tree.leaves), **notes)


def relative_error(value: Any, tree: Tree) -> float:
    return abs(float(value) - tree.penalty) / tree.penalty


def minor_faults(call: Callable[[], object]) -> int | None:
    """Pages that the kernel had to hand out during one call; None where the platform does not count them."""
    try:
        import resource
    except ImportError:
        return None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
