"""What nvcc made of the kernels of the steps: no spills in the module that was built, enough bytes in flight."""

from __future__ import annotations

import importlib.util

import pytest

from tests.emulation.artefact import NEEDED, PAGE, cuobjdump
from tests.emulation.harness import toolkit
from tests.emulation.step_artefact import KERNELS, KINDS, MARK, in_the_module, measure

pytestmark = [
    pytest.mark.skipif(cuobjdump() is None, reason="needs cuobjdump, which Triton's package carries"),
    pytest.mark.skipif(importlib.util.find_spec("fused_penalty._cuda") is None, reason="the CUDA module was not built"),
]


def test_every_kernel_of_the_module() -> None:
    """No register is spilled, for any architecture that it was built for."""
    found = in_the_module()
    archs = {arch for _, arch in found}
    assert found.keys() == {(kernel, arch) for kernel in KERNELS for arch in archs}
    assert archs
    assert {name for name, kernel in found.items() if kernel.stack} == set()


@pytest.mark.skipif(toolkit() is None, reason="needs nvcc")
def test_bytes_in_flight() -> None:
    """All loads of a group before its arithmetic, and wide stores: of the step with the most that two blocks hold."""
    launched = in_the_module()["adam", "sm_90"]
    for row in measure("adam", "sm_90", launched):
        assert row.stores > 0
        assert row.in_flight >= NEEDED[row.arch], row


def test_the_page_holds_the_table() -> None:
    table = PAGE.read_text().split(MARK)[1]
    for kernel in KERNELS:
        for arch in ("sm_80", "sm_90"):
            assert sum(f"| {kernel} | {kind} | {arch} |" in table for kind in KINDS) == len(KINDS)
