"""What XLA makes of the penalty for an H100: one call, inside the command buffer, and no copy of the model."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.models import trees
from tests.emulation.harness import ROOT

# Wheels of the CUDA plugin in a folder of their own (make test puts them there where nvcc is found), since in the
# environment itself they would make every JAX program look for a GPU.
PLUGIN = Path(os.environ.get("FUSED_PENALTY_CUDA_PLUGIN", ROOT / ".venv" / "cuda-plugin"))
MODEL = 4 * trees.size(trees.MODELS["gpt2"])

pytestmark = [
    pytest.mark.skipif(
        not (PLUGIN / "jax_plugins").exists(), reason="jax-cuda13-plugin is not installed for the tests"
    ),
    pytest.mark.skipif(importlib.util.find_spec("fused_penalty._cuda") is None, reason="the CUDA module was not built"),
]


@pytest.fixture(scope="module")
def h100() -> dict[str, Any]:
    paths = [str(PLUGIN), str(ROOT)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "tests.emulation.h100_compile"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["penalty", "penalty of 2,000 leaves", "penalty_and_grad"])
def test_one_launch(h100: dict[str, Any], name: str) -> None:
    found = h100[name]
    assert found["calls"] == 1
    assert found["launches"] <= 3  # the call, and scalars: sums times strengths
    assert found["copies"] == 0
    assert found["temp"] < 2**20
    assert found["seconds"] < 30


def test_stats_and_prox_are_one_call(h100: dict[str, Any]) -> None:
    """Donated parameters are written where they lie: no copy, no memory beside them."""
    for name in ("stats", "prox", "prox after a step"):
        found = h100[name]
        assert found["calls"] == 1
        assert found["copies"] == 0
        assert found["temp"] < 2**20, found
    assert h100["prox"]["launches"] <= 3


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_donated_step(h100: dict[str, Any], optimizer: str) -> None:
    """One call, in the command buffer; no copies and no more memory than the decay step."""
    found, decay = h100[f"{optimizer} step, penalty"], h100[f"{optimizer} step, decay"]
    assert found["calls"] == found["calls_in_a_command_buffer"] == 1
    assert found["copies"] == 0
    assert found["temp"] <= decay["temp"] + 2**20
    assert found["launches"] <= decay["launches"] + 4


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimizers_step_is_one_call(h100: dict[str, Any], name: str) -> None:
    """Over arrays that stay where they are; what else is launched makes scalars. AdamW's are enough for a command
    buffer (XLA makes none of fewer than five launches), and the call is in it."""
    found = h100[f"optim.{name}"]
    assert found["calls"] == 1
    assert found["calls_in_a_command_buffer"] == (name == "adamw")
    assert found["copies"] <= 1  # of the count of steps
    assert found["temp"] < 2**20
    assert found["launches"] <= 6


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
def test_eight_gpus(h100: dict[str, Any], axes: str) -> None:
    """Each launches once on its own shards; then one all-reduce, none where only the gradient is used."""
    needs = {"penalty": 1, "gradient": 0, "penalty_and_grad": 1, "prox": 0, "SGD step": 1}
    for name, all_reduces in needs.items():
        found = h100[f"{axes} mesh, {name}"]
        assert found["calls"] == 1, name
        assert found["collectives"] == {"all_reduces": all_reduces, "all_gathers": 0, "other_collectives": 0}, name
        assert found["copies"] == 0, name
        assert found["temp"] < 2**20, name


def test_the_naive_sum_beside_it(h100: dict[str, Any]) -> None:
    """The test of the test: hundreds of launches, and a copy of the model in the step."""
    assert h100["naive"]["launches"] > 200
    assert h100["SGD step, naive"]["copies"] >= len(trees.MODELS["gpt2"])
    assert h100["SGD step, naive"]["temp"] > MODEL / 4
