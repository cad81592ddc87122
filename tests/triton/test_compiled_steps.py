"""The Triton kernel of a step compiled for a GPU that is not here: its machine code."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

from fused_penalty._core.backends import TRITON_DEVICES
from fused_penalty._core.steps import Step
from tests.emulation.artefact import NEEDED, cuobjdump
from tests.triton.aot import compiled_step
from tests.triton.artefact import nvidia

pytestmark = [
    pytest.mark.skipif(TRITON_DEVICES == ("cpu",), reason="the interpreter is on: nothing is compiled"),
    pytest.mark.skipif(cuobjdump() is None, reason="needs cuobjdump, which Triton's package carries"),
]


def test_machine_code_of_adam() -> None:
    row = nvidia("adam", "sm_90", compiled_step(90, Step.ADAM, False, False))
    assert row.scratch == 0, row
    assert row.vector_loads >= 2 * 2 * 4, row  # two rows of four arrays, float32 and float64
    assert row.vector_stores >= 2 * 2 * 3, row
    assert row.in_flight is not None
    assert row.in_flight >= NEEDED[row.arch], row
