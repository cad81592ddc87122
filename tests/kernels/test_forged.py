"""Forged calls of the native entries: each is refused by an error that names what is wrong; none ends the process."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from tests.support.fresh import run_fresh

_cpu = pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
GROUPS = (
    "anchors", "totals", "coefficients", "tables", "leaves", "operations", "outputs", "steps", "results of steps",
)  # of forged.py  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.parametrize("group", GROUPS)
def test_custom_calls(group: str) -> None:
    """In a process of its own, so that a crash is the failure of one group."""
    assert run_fresh(f"from tests.kernels import forged; forged.run({group!r})") == "alive"


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_every_group_is_run() -> None:
    from tests.kernels import forged

    assert tuple(forged.groups()) == GROUPS


torch = pytest.importorskip("torch", reason="_cpu.launch reads torch's tensors")

from fused_penalty._core.operations import Op
from fused_penalty._core.plan import BOTH, plan_of_layout


class Call:
    """A sound call of `_cpu.launch`, of which a test changes a part."""

    def __init__(self, op: int = Op.GRADIENT) -> None:
        self.xs = [torch.ones(100_000), torch.ones(3, dtype=torch.float16)]
        self.x = _cpu.Tensors(self.xs)
        writes = op not in (Op.SUMS, Op.STATS)
        self.arguments: dict[str, Any] = {
            "op": op,
            "table": plan_of_layout(self.x.layout, BOTH).table,
            "x": self.x,
            "anchor": None,
            "out": _cpu.Tensors([torch.empty_like(x) for x in self.xs]) if writes else None,
            "coefficients": torch.ones(2, 2, dtype=torch.float64) if writes else None,
            "totals": torch.zeros(2, 5 if op == Op.STATS else 2, dtype=torch.float64),
            "threads": 1,
        }

    def launch(self, **changed: Any) -> Any:
        arguments = {**self.arguments, **changed}
        _cpu.launch(**arguments)
        return arguments["totals"]


@pytest.mark.parametrize("op", Op)
def test_a_sound_launch(op: Op) -> None:
    assert Call(op).launch()[:, 0].tolist() == [100_000, 3]


@pytest.mark.parametrize("code", [len(Op), len(Op) + 1, 255, -1, 2**31 - 1])
def test_unknown_operations(code: int) -> None:
    with pytest.raises(ValueError, match="no operation has the code"):
        Call().launch(op=code)


F64 = torch.float64
TOTALS = {
    "float32": (torch.zeros(2, 2), "float64"),
    "short": (torch.zeros(1, 2, dtype=F64), "row for each slot"),
    "of stats": (torch.zeros(2, 5, dtype=F64), r"\(slots, 2\)"),
    "flat": (torch.zeros(4, dtype=F64), r"\(slots, 2\)"),
    "with gaps": (torch.zeros(2, 4, dtype=F64)[:, ::2], "contiguous"),
    "transposed": (torch.zeros(2, 2, dtype=F64).t(), "contiguous"),
    "on meta": (torch.zeros(2, 2, dtype=F64, device="meta"), "."),
}


@pytest.mark.parametrize("what", TOTALS)
@pytest.mark.parametrize("name", ["totals", "coefficients"])
def test_totals_and_coefficients(name: str, what: str) -> None:
    given, message = TOTALS[what]
    with pytest.raises((ValueError, RuntimeError), match=message):
        Call().launch(**{name: given})


@pytest.mark.parametrize("given", [0, 1 << 20, 1.0, "totals", np.zeros((2, 2)), [torch.zeros(2, 2, dtype=F64)]])
@pytest.mark.parametrize("name", ["totals", "coefficients"])
def test_what_is_no_tensor(name: str, given: Any) -> None:
    with pytest.raises(TypeError):
        Call().launch(**{name: given})


def test_short_totals_of_a_reading_launch() -> None:
    with pytest.raises(ValueError, match="chunk 2 of the plan does not fit"):
        Call(Op.SUMS).launch(totals=torch.zeros(1, 2, dtype=F64))


@pytest.mark.parametrize("op", [Op.GRADIENT, Op.ADD_GRADIENT, Op.PROX, Op.REGULARIZE])
@pytest.mark.parametrize("name", ["out", "coefficients"])
def test_missing(op: Op, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} (is|are) missing"):
        Call(op).launch(**{name: None})


@pytest.mark.parametrize("op", [Op.SUMS, Op.STATS])
def test_what_a_reading_launch_does_not_take(op: Op) -> None:
    call = Call(op)
    with pytest.raises(ValueError, match="out is given"):
        call.launch(out=call.x)
    with pytest.raises(ValueError, match="coefficients are given"):
        call.launch(coefficients=torch.ones(2, 2, dtype=F64))


IRREGULAR = {
    "gaps": torch.ones(200_000)[::2],
    "expanded": torch.ones(1).expand(100_000),
    "overlaps": torch.ones(100_100).as_strided((1000, 100), (100, 2)),
}


@pytest.mark.parametrize("what", IRREGULAR)
@pytest.mark.parametrize("name", ["x", "anchor", "out"])
def test_irregular_tensors(name: str, what: str) -> None:
    call = Call()
    with pytest.raises(ValueError, match=f"{name} 0 is absent, or has gaps or overlaps"):
        call.launch(**{name: _cpu.Tensors([IRREGULAR[what], call.xs[1]])})


@pytest.mark.parametrize("name", ["x", "anchor"])
def test_absent_tensors(name: str) -> None:
    """None stands for an output that is not wanted; nothing else may be absent."""
    call = Call()
    absent = _cpu.Tensors([call.xs[0], None], like=call.x)
    with pytest.raises(ValueError, match=f"{name} 1 is absent"):
        call.launch(**{name: absent})
    assert call.launch(out=absent)[:, 0].tolist() == [100_000, 3]


@pytest.mark.parametrize("name", ["anchor", "out"])
def test_arrays_unlike_their_leaves(name: str) -> None:
    call = Call()
    short, narrow = torch.ones(4), torch.ones(100_000, dtype=torch.bfloat16)
    for other in ([short, call.xs[1]], [narrow, call.xs[1]], [call.xs[0]], [*call.xs, short], call.xs[::-1]):
        with pytest.raises(ValueError, match=f"{name} must have the sizes and dtypes of x"):
            call.launch(**{name: _cpu.Tensors(other)})


def test_tables_of_another_shape() -> None:
    call = Call()
    table = call.arguments["table"]
    for other in (table[:, :3].copy(), table.ravel(), table[None]):
        with pytest.raises(ValueError, match="table must have the shape"):
            call.launch(table=other)
    with pytest.raises(TypeError):
        call.launch(table=table.astype(np.int64))


def test_a_list_that_was_read_keeps_its_tensors() -> None:
    """An address never outlives its memory, whatever becomes of the list."""
    import gc
    import weakref

    tensors = [torch.ones(1000) for _ in range(3)]
    alive = [weakref.ref(t) for t in tensors]
    read = _cpu.Tensors(tensors)
    del tensors[1:]
    tensors.clear()
    gc.collect()
    assert all(ref() is not None for ref in alive)
    total = torch.zeros(3, 2, dtype=F64)
    _cpu.launch(Op.SUMS, plan_of_layout(read.layout, BOTH).table, read, None, None, None, total, 1)
    assert total[:, 0].tolist() == [1000.0] * 3
    del read
    gc.collect()
    assert all(ref() is None for ref in alive)
