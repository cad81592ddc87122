"""The host side of the CUDA backend: launch.cu, jax_cuda.cc and module_cuda.cc as they are, built by g++ on a mock CUDA
runtime, with XLA's CPU client calling the handlers, at once and out of command buffers that are replayed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.emulation.harness import toolkit
from tests.support.fresh import run_fresh

pytest.importorskip("jax", reason="XLA calls the handlers")
pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
pytestmark = [
    pytest.mark.skipif(toolkit() is None, reason="the mock runtime needs the headers of a CUDA toolkit (nvcc)"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the emulator's fibers are for Linux"),
]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.emulation.mock_build import build

    return build(tmp_path_factory.mktemp("mock"))


def run(module: Path, scenario: str, *args: object) -> None:
    """In a process of its own, so that a crash is a failure."""
    given = ", ".join([repr(str(module)), scenario, *map(repr, args)])
    assert run_fresh(f"from tests.emulation import mocked, mocked_steps; mocked.run({given})") == "right"


@pytest.mark.parametrize(
    ("leaves", "names"),
    [
        (3, ["penalty", "grad", "penalty_and_grad", "prox", "stats"]),
        (148, ["penalty", "penalty_and_grad", "prox", "stats"]),
        (481, ["penalty", "penalty_and_grad", "prox", "stats"]),
        (4081, ["penalty"]),
    ],
)
def test_verbs_equal_the_cpu(module: Path, leaves: int, names: list[str]) -> None:
    run(module, "mocked.verbs", leaves, names)


def test_replayed_steps_touch_nobody_elses_memory(module: Path) -> None:
    run(module, "mocked.steps")


def test_scratch_that_does_not_fit_is_refused(module: Path) -> None:
    run(module, "mocked.refusals")


def test_an_error_is_raised_once_and_without_the_gil(module: Path) -> None:
    run(module, "mocked.errors")


@pytest.mark.parametrize("scenario", ["equal", "many", "torch_backend", "refusals", "jax_optimizers"])
def test_an_optimizers_step(module: Path, scenario: str) -> None:
    run(module, f"mocked_steps.{scenario}")
