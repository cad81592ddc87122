"""What nvcc made of the kernels: no spills, 128-bit loads and stores, enough bytes in flight."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulation.artefact import KERNELS, MARK, NEEDED, cuobjdump, measure
from tests.emulation.harness import ROOT, toolkit

pytestmark = [
    pytest.mark.skipif(toolkit() is None, reason="needs nvcc"),
    pytest.mark.skipif(cuobjdump() is None, reason="needs cuobjdump, which Triton's package carries"),
]


# Every kernel for one architecture; for the others those from which the rest differs by a line of arithmetic.
HEAVY = ("sums", "gradient", "add_gradient, anchor")
CASES = [(k, a) for k in KERNELS for a in ("sm_80", "sm_90", "sm_120") if a == "sm_90" or k.startswith(HEAVY)]


@pytest.mark.parametrize(("kernel", "arch"), CASES)
def test_machine_code(kernel: str, arch: str, tmp_path: Path) -> None:
    for row in measure(kernel, arch, tmp_path):
        assert row.spills == 0, row
        if kernel.startswith(("sums", "gr")):  # all loads of a group, before arithmetic
            assert row.wide_loads >= (8 if "anchor" in kernel else 4), row
        assert (row.wide_stores > 0) == kernel.startswith(("gradient", "add", "prox", "regularize")), row
        assert row.in_flight >= NEEDED[row.arch], row


def test_the_page_holds_the_table() -> None:
    """Every kernel and architecture stands in docs/gpu.md, put there by the script."""
    table = (ROOT / "docs" / "gpu.md").read_text().split(MARK)[1]
    for kernel in KERNELS:
        for arch in ("sm_80", "sm_90", "sm_100", "sm_120"):
            assert table.count(f"| {kernel} | ") >= 16
            assert f"| {arch} |" in table
