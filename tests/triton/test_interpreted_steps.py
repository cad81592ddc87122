"""Steps of optimizers by Triton's interpreter: what the CPU's kernels write, in one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="Triton is not installed")
pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
from torch import nn

from fused_penalty._core import backends
from fused_penalty._core.steps import COEFFICIENTS, Step
from fused_penalty.torch.optim import AdamW
from tests.support.step_cases import ADAM, CASES, DTYPES, Arrays

pytestmark = pytest.mark.skipif(
    backends.TRITON_DEVICES != ("cpu",),
    reason="needs TRITON_INTERPRET=1 from the start: test_suite.py sets it",
)
SIZES = [n for n in (3, 0, 2055, 5000) for _ in DTYPES]
PROXIMAL = {"threshold": 0.01, "pull": 0.03, "metric": 1.0}
# Of each step one case, and what only some of them have.
CHOSEN = [*CASES[2:6], (Step.ADAM, {**ADAM, **PROXIMAL}), *CASES[8:]]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of the kernels launched since."""
    from fused_penalty.torch.backends import triton

    kernel, seen = triton.step_kernel, []

    class Counted:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def run(*args: Any, **options: Any) -> None:
                seen.append(options)
                kernel[grid](*args, **options)

            return run

    monkeypatch.setattr(triton, "step_kernel", Counted())
    return seen


@pytest.mark.parametrize(
    ("number", "case"), list(enumerate(CHOSEN)), ids=lambda v: v[0].name if isinstance(v, tuple) else ""
)
def test_the_bits_of_the_cpu_kernels(number: int, case: tuple[Step, dict[str, float]], launches: list[Any]) -> None:
    """All kinds of leaves in one launch, some of them only read; the interpreter rounds to bfloat16 by cutting bits
    off: one ulp."""
    from fused_penalty.torch.backends import cpu, triton

    step, changed = case
    ours, theirs = (Arrays(step, DTYPES, anchored=number % 2 == 0, sizes=SIZES, skew=True) for _ in range(2))
    coefficients = ours.coefficients(**changed)
    coefficients[4, COEFFICIENTS.index("skip")] = 1
    totals = [
        launcher.step(step, a.xs, a.anchors, a.arrays, coefficients)
        for launcher, a in ((triton.LAUNCHER, ours), (cpu.LAUNCHER, theirs))
    ]
    assert len(launches) == 1
    for found, expected in zip(ours.written(), theirs.written(), strict=True):
        if found.dtype == torch.bfloat16:
            torch.testing.assert_close(found, expected, rtol=2.0**-7, atol=2.0**-20)
        else:
            assert torch.equal(found, expected)
    torch.testing.assert_close(*totals, rtol=1e-6, atol=1e-30)
    assert torch.equal(totals[0][:, 4:], totals[1][:, 4:])  # counts


def test_an_optimizer(launches: list[Any]) -> None:
    found = []
    for backend in ("triton", "cpu"):
        torch.manual_seed(0)
        p = [nn.Parameter(torch.randn(n)) for n in (5, 700)]
        optimizer = AdamW(p, l1=0.01, l2=0.1, backend=backend)
        for _ in range(3):
            for x in p:
                x.grad = x.detach().cos()
            optimizer.step()
        found.append([*(x.detach() for x in p), optimizer.penalty])
    assert len(launches) == 3
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
