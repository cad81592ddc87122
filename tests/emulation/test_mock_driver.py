"""The host side of the CUDA backend: the module of the package on a mock driver (tests/emulation/mock), with XLA's CPU
client calling the handlers, at once and out of command buffers that are replayed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.emulation.harness import toolkit
from tests.support.fresh import run_fresh

pytest.importorskip("jax", reason="XLA calls the handlers")
pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
pytest.importorskip("fused_penalty._cuda", reason="the CUDA module was not built", exc_type=ImportError)
pytestmark = [
    pytest.mark.skipif(toolkit() is None, reason="the emulated kernels need the headers of a CUDA toolkit (nvcc)"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the emulator's fibers are for Linux"),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.emulation.mock_build import build

    return build(tmp_path_factory.mktemp("mock"))


def run(driver: Path, scenario: str, *args: object) -> None:
    """In a process of its own, so that a crash is a failure."""
    given = ", ".join([repr(str(driver)), scenario, *map(repr, args)])
    assert run_fresh(f"from tests.emulation import mocked, mocked_driver, mocked_steps; mocked.run({given})") == "right"


@pytest.mark.parametrize(
    ("leaves", "names"),
    [
        (3, ["penalty", "grad", "penalty_and_grad", "prox", "stats"]),
        (148, ["penalty", "penalty_and_grad", "prox", "stats"]),
        (481, ["penalty", "penalty_and_grad", "prox", "stats"]),
        (4081, ["penalty"]),
    ],
)
def test_verbs_equal_the_cpu(driver: Path, leaves: int, names: list[str]) -> None:
    run(driver, "mocked.verbs", leaves, names)


def test_replayed_steps_touch_nobody_elses_memory(driver: Path) -> None:
    run(driver, "mocked.steps")


def test_scratch_that_does_not_fit_is_refused(driver: Path) -> None:
    run(driver, "mocked.refusals")


@pytest.mark.parametrize("scenario", ["errors", "memory", "loading"])
def test_the_drivers_ways(driver: Path, scenario: str) -> None:
    run(driver, f"mocked_driver.{scenario}")


OLD = "the NVIDIA driver is of CUDA 11.8; 12.1 (R530) or newer is needed"
MACHINES = {
    "a good one": (12010, 1, 70, "", False),
    "a newer one": (13010, 1, 120, "", False),
    "an old driver": (11080, 1, 80, OLD, True),
    "an old device": (12010, 1, 61, "compute capability 6.1 is below 7.0", True),
    "no device": (12010, 0, 0, "no device", False),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_said_of_a_machine(driver: Path, machine: str) -> None:
    run(driver, "mocked_driver.presence", *MACHINES[machine])


@pytest.mark.parametrize(
    ("version", "why"),
    [(".version X.1\n", "CUDA_ERROR_INVALID_PTX"), (".version 8.2\n", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION")],
)
def test_an_image_that_the_driver_refuses(driver: Path, version: str, why: str) -> None:
    run(driver, "mocked_driver.corrupt", version, why)


@pytest.mark.parametrize("scenario", ["equal", "many", "torch_backend", "refusals", "jax_optimizers"])
def test_an_optimizers_step(driver: Path, scenario: str) -> None:
    run(driver, f"mocked_steps.{scenario}")
