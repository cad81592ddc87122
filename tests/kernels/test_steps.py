"""The native step: against its twin in torch, with the same bits on every instruction set and number of threads; and
forged calls, each of which is refused before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

_cpu = pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
torch = pytest.importorskip("torch", reason="_cpu.step reads torch's tensors")

from fused_penalty._core.plan import BOTH, plan_of_layout
from fused_penalty._core.steps import COEFFICIENTS, COLUMNS, Step, StepRole
from fused_penalty.torch.backends import cpu, reference
from tests.support.edges import SIZES
from tests.support.step_cases import ADAM, CASES, DTYPES, F64, Arrays, bits


@pytest.mark.parametrize(("dtype", "state"), DTYPES, ids=str)
@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize(("step", "changed"), CASES, ids=str)
def test_as_its_twin(step: Step, changed: dict[str, float], anchored: bool, dtype: Any, state: Any) -> None:
    """The same operations in the same order. torch's square root may be MKL's, which is not rounded correctly."""
    native, plain = (Arrays(step, [(dtype, state)], anchored=anchored) for _ in range(2))
    coefficients = native.coefficients(**changed)
    totals = [
        launcher.step(step, a.xs, a.anchors, a.arrays, coefficients)
        for launcher, a in ((cpu.LAUNCHER, native), (reference, plain))
    ]
    for p, q in zip(native.written(), plain.written(), strict=True):
        unit = torch.finfo(p.dtype).eps
        torch.testing.assert_close(p, q, rtol=4 * unit, atol=4 * unit)
    torch.testing.assert_close(*totals, rtol=1e-12 if dtype == F64 else 2e-6, atol=1e-30)


@pytest.mark.parametrize(("dtype", "state"), DTYPES, ids=str)
@pytest.mark.parametrize(("step", "changed"), CASES, ids=str)
def test_the_same_bits_everywhere(step: Step, changed: dict[str, float], dtype: Any, state: Any) -> None:
    """On every instruction set."""
    found = []
    for isa in (i for i in _cpu.Isa.__members__.values() if _cpu.supported(i)):
        a = Arrays(step, [(dtype, state)], anchored=True, sizes=[*SIZES[:12], 70_000])
        totals = a.launch(a.coefficients(**changed), isa)
        found.append((bits(a.written()), totals.numpy().tobytes()))
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("step", Step)
def test_the_same_bits_with_any_number_of_threads(step: Step) -> None:
    found = []
    for threads in (1, 2, 3):
        a = Arrays(step, [F32], anchored=True, sizes=[5, 7, 1_700_000])
        totals = a.launch(a.coefficients(**ADAM, threshold=0.01, metric=1.0), _cpu.best_isa(), threads)
        found.append((bits(a.written()), totals.numpy().tobytes()))
    assert all(f == found[0] for f in found)


def test_a_leaf_is_only_read_where_there_is_no_gradient() -> None:
    a = Arrays(Step.ADAM, [F32], anchored=False)
    before = a.xs[1].clone()
    total = a.launch(a.coefficients(**ADAM), _cpu.best_isa())
    assert torch.equal(a.xs[1], before)
    assert total[1, 0] == before.abs().sum()
    assert not total[1, 2:].any()


F32 = (torch.float32, torch.float32)
SIZED = [100_000, 3, 5]


class Forged(Arrays):
    """A sound call, of which a test changes a part."""

    def __init__(self, step: Step = Step.ADAM) -> None:
        super().__init__(step, [F32], anchored=True, sizes=SIZED)
        names = ("x", "anchor", *(role.value for role in StepRole))
        reads = dict(zip(names, self.reads(), strict=True))
        self.arguments: dict[str, Any] = {
            "step": step,
            "table": plan_of_layout(reads["x"].layout, BOTH).table,
            **reads,
            "coefficients": self.coefficients(**ADAM),
            "totals": torch.zeros(3, len(COLUMNS), dtype=F64),
            "threads": 1,
        }

    def refuses(self, message: str, **changed: Any) -> None:
        before = bits(self.written())
        with pytest.raises((ValueError, TypeError), match=message):
            _cpu.step(**{**self.arguments, **changed})
        assert bits(self.written()) == before


def short(n: int = 3, dtype: Any = torch.float32) -> Any:
    return _cpu.Tensors([torch.zeros(n, dtype=dtype)] * 3)


def test_a_sound_call() -> None:
    _cpu.step(**Forged().arguments)


@pytest.mark.parametrize("code", [-1, len(Step), 255, 2**31 - 1])
def test_unknown_steps(code: int) -> None:
    Forged().refuses("no step has the code", step=code)


@pytest.mark.parametrize("name", ["gradient", "first", "second"])
def test_arrays(name: str) -> None:
    call = Forged()
    call.refuses(f"{name} is missing", **{name: None})
    call.refuses(f"{name} must have", **{name: short()})
    call.refuses(f"{name} must have", **{name: _cpu.Tensors([torch.zeros(3)])})
    call.refuses(f"{name} must have", **{name: _cpu.Tensors([x.double() for x in call.xs])})
    gaps = [torch.zeros(2 * n)[::2] for n in SIZED]
    call.refuses(f"{name} 0 is absent, or has gaps", **{name: _cpu.Tensors(gaps)})
    absent = _cpu.Tensors([None, None, torch.zeros(5)], call.arguments["x"])
    if name != "gradient":
        call.refuses(f"{name} is absent where there is a gradient", **{name: absent})


def test_what_a_step_has_not() -> None:
    call = Forged(Step.SGD)
    call.refuses("first is given", first=call.arguments["gradient"])
    Forged().refuses("maximum is given", maximum=Forged().arguments["second"])


def test_state_of_two_dtypes() -> None:
    call = Forged()
    call.refuses("second must have", second=_cpu.Tensors([x.half() for x in call.xs]))


def test_x_that_is_only_read() -> None:
    xs = [torch.zeros(n).to(torch.float8_e5m2) for n in SIZED]
    call = Forged(Step.SGD)
    call.refuses("dtype that is only read", x=_cpu.Tensors(xs))


def test_matrices() -> None:
    call = Forged()
    for name, columns in (("totals", len(COLUMNS)), ("coefficients", len(COEFFICIENTS))):
        call.refuses("row for each slot", **{name: torch.zeros(2, columns, dtype=F64)})
        call.refuses("float64", **{name: torch.zeros(3, columns)})
        call.refuses(r"shape \(slots", **{name: torch.zeros(3, columns - 1, dtype=F64)})
    call.refuses("anchor must have", anchor=short())


def test_a_table_that_does_not_fit() -> None:
    call = Forged()
    longer = plan_of_layout(_cpu.Tensors([torch.zeros(n + 1) for n in SIZED]).layout, BOTH).table
    call.refuses("of the plan does not fit", table=longer)
    call.refuses("shape", table=call.arguments["table"][:, :3].copy())
