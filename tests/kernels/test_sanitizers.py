"""The CPU kernels as a program of their own, under ASan + UBSan and under TSan (`make sanitize`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SOURCE = ROOT / "tests" / "kernels"
BUILDS = {"address": "address,undefined", "thread": "thread"}

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which(os.environ.get("CXX", "g++")) is None,
    reason="needs cmake and a C++ compiler",
)


@pytest.fixture(scope="session")
def build(request: pytest.FixtureRequest) -> dict[str, Path]:
    """One build folder a sanitizer, kept between runs."""
    found = {}
    for name, flags in BUILDS.items():
        folder = ROOT / "build" / f"sanitize-{name}"
        for command in (
            ["cmake", "-S", str(SOURCE), "-B", str(folder), f"-DSANITIZE={flags}", "-DCMAKE_BUILD_TYPE=Release"],
            ["cmake", "--build", str(folder), "--parallel", "2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        found[name] = folder / "kernels_test"
    return found


def run(program: Path, mode: str) -> subprocess.CompletedProcess[str]:
    # Without address randomisation: TSan of GCC 12 does not start on kernels that randomise more bits.
    prefix = ["setarch", "-R"] if shutil.which("setarch") else []
    return subprocess.run([*prefix, str(program), mode], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("sanitizer", "mode"), [("address", "values"), ("address", "threads"), ("thread", "threads")])
def test_kernels_are_clean(build: dict[str, Path], sanitizer: str, mode: str) -> None:
    done = run(build[sanitizer], mode)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{mode}: 0 failures" in done.stdout


@pytest.mark.parametrize(
    ("sanitizer", "mode", "report"),
    [("address", "overrun", "heap-buffer-overflow"), ("thread", "race", "data race")],
)
def test_seeded_faults_are_caught(build: dict[str, Path], sanitizer: str, mode: str, report: str) -> None:
    """The test of the test."""
    done = run(build[sanitizer], mode)
    assert done.returncode != 0
    assert report in done.stderr
