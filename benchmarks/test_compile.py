"""The first call (trace, compile and run) and its peak memory, each case in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contenders.table import FORWARD, GRADIENT, OPTIMIZER, Contender
from benchmarks.harness.measure import FULL, cases, note
from benchmarks.models.cases import MODELS, Tree

PROBE = "benchmarks.harness.probe"
ROOT = Path(__file__).parents[1]
COMPILES = ("ours jit", "naive jit", "compile naive")
STEPS = (("jax", "SGD ours"), ("jax", "SGD optax"))
IN_MEMORY = ("ours value_and_grad", "ours penalty_and_grad", "naive jit", "naive eager")


@pytest.mark.parametrize(
    ("tree", "row"),
    [
        *cases([r for r in FORWARD if r.name in COMPILES], MODELS if FULL else MODELS[:3], ("float32",)),
        *cases([r for r in GRADIENT if r.name in IN_MEMORY], ("gpt2",), ("float32",)),
        *cases([r for r in OPTIMIZER if (r.framework, r.name) in STEPS], ("many",), ("float32",)),
    ],
    indirect=["tree"],
)
def test_compile(benchmark: Any, tree: Tree, row: Contender) -> None:
    command = [sys.executable, "-m", PROBE, row.verb, row.framework, row.name, tree.model, tree.dtype]

    def probe() -> dict[str, float]:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    note(benchmark, tree)
    benchmark.extra_info.update(benchmark.pedantic(probe, rounds=1))
