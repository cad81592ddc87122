"""A whole SGD step: donated in JAX, in place in PyTorch. Three runs in turn, so that a disturbance of the machine
hits one run and not one contender; the report takes the best."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.contenders import steps
from benchmarks.contenders.table import at
from benchmarks.harness.measure import cases, measure
from benchmarks.models.cases import DTYPES, MODELS, Tree

RUNS = 3
QUICK = at("gpt2 resnet50", "")


@dataclass(frozen=True)
class Step:
    framework: str
    name: str
    run: int

    def skip(self, model: str, dtype: str, full: bool) -> str | None:
        if importlib.util.find_spec(self.framework) is None:
            return f"{self.framework} is not installed"
        return None if full or (model, dtype) in QUICK else "BENCH=full"


ROWS = [
    Step(framework, kind, run)
    for framework, kinds in (("jax", steps.JAX_KINDS), ("torch", steps.TORCH_KINDS))
    for run in range(RUNS)
    for kind in kinds
    if run == 0 or (framework == "jax" and kind != "naive")
]


@pytest.mark.parametrize(("tree", "row"), cases(ROWS, MODELS, DTYPES), indirect=["tree"])
def test_step(benchmark: Any, tree: Tree, row: Step) -> None:
    if row.framework == "jax":
        call, temporary = steps.jax_step(row.name, tree)
        benchmark.extra_info["temporary_bytes"] = temporary
    else:
        call = steps.torch_step(row.name, tree)
    measure(benchmark, tree, call, run=row.run)
