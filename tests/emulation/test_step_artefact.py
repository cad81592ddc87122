"""What nvcc and ptxas made of the kernels of the steps: no spills in the images, enough bytes in flight."""

from __future__ import annotations

import pytest

from tests.emulation.artefact import NEEDED, PAGE, cuobjdump
from tests.emulation.harness import toolkit
from tests.emulation.step_artefact import KERNELS, KINDS, MARK, every, launched, measure

needs_nvcc = pytest.mark.skipif(toolkit() is None, reason="needs nvcc")


@needs_nvcc
def test_no_register_is_spilled() -> None:
    assert {name for name, kernel in every(("sm_90",)).items() if kernel.stack} == set()


@needs_nvcc
@pytest.mark.skipif(cuobjdump() is None, reason="needs cuobjdump, which Triton's package carries")
def test_bytes_in_flight() -> None:
    """All loads of a group before its arithmetic, and wide stores: of the step with the most that two blocks hold."""
    for row in measure("adam", "sm_90", launched("adam", "sm_90")):
        assert row.stores > 0
        assert row.in_flight >= NEEDED[row.arch], row


def test_the_page_holds_the_table() -> None:
    table = PAGE.read_text().split(MARK)[1]
    for kernel in KERNELS:
        for arch in ("sm_80", "sm_90"):
            assert sum(f"| {kernel} | {kind} | {arch} |" in table for kind in KINDS) == len(KINDS)
