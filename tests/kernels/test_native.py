"""The native module itself: instruction sets, threads, alignment, refusals, fork."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest

from tests.support import edges
from tests.support.fresh import run_fresh

torch = pytest.importorskip("torch", reason="the native launcher is driven through torch tensors here")
_cpu = pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)

from fused_penalty._core.dtypes import BITS, MASK, TABLE
from fused_penalty._core.operations import Op
from fused_penalty._core.plan import BOTH, SLOT_SHIFT, plan_of_layout
from fused_penalty.torch import penalty_and_grad, sums

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ISAS = [_cpu.Isa.portable, _cpu.Isa.avx2, _cpu.Isa.avx512]


def launch(xs: list[Any], *, threads: int = 1, isa: Any = None, gradient: bool = False, table: Any = None) -> Any:
    read = _cpu.Tensors(xs)
    plan = plan_of_layout(read.layout, BOTH)
    total = torch.empty(plan.slot_count, 2, dtype=torch.float64)
    outs = [torch.empty_like(x) for x in xs]
    coefficients = torch.tensor([[0.3, 0.7]], dtype=torch.float64).repeat(len(xs), 1)
    _cpu.launch(
        Op.GRADIENT if gradient else Op.SUMS,
        plan.table if table is None else table,
        read,
        None,
        _cpu.Tensors(outs) if gradient else None,
        coefficients if gradient else None,
        total,
        threads,
        _cpu.best_isa() if isa is None else isa,
    )
    return total, outs


def bits(x: Any) -> bytes:
    return x.contiguous().view(torch.uint8).numpy().tobytes() if x.ndim else x.numpy().tobytes()


def edge_tensors(dtype: Any) -> list[Any]:
    g = torch.Generator().manual_seed(0)
    sizes = [n for n in edges.SIZES if n]
    found = [torch.randn(n, generator=g, dtype=torch.float64).to(dtype) for n in sizes]
    info = torch.finfo(dtype)
    special = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), info.max, info.tiny, info.smallest_normal / 4]
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)  # all halves, NaN too
    return [*found, torch.tensor(special, dtype=dtype), every if dtype == torch.float16 else every.to(dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gradient", [False, True])
def test_every_instruction_set_gives_the_same_bits(dtype: Any, gradient: bool) -> None:
    xs = edge_tensors(dtype)
    expected, expected_outs = launch(xs, isa=_cpu.Isa.portable, gradient=gradient)
    tried = 0
    for isa in ISAS:
        if not _cpu.supported(isa):
            continue
        tried += 1
        total, outs = launch(xs, isa=isa, gradient=gradient)
        assert bits(torch.nan_to_num(total)) == bits(torch.nan_to_num(expected))
        assert torch.equal(total.isnan(), expected.isnan())
        if gradient:
            for a, b in zip(outs, expected_outs, strict=True):
                assert torch.equal(a.isnan(), b.isnan())
                assert torch.equal(a.nan_to_num(), b.nan_to_num())
    assert tried >= 1


def test_conversion_of_every_half() -> None:
    """Each of the 65,536 halves through the portable path: x -> float -> x is exact, subnormals included."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    finite = every[every.isfinite()]
    for isa in (i for i in ISAS if _cpu.supported(i)):
        read, out = _cpu.Tensors([finite]), torch.empty_like(finite)
        plan = plan_of_layout(read.layout, 2)  # only b * x, with b = 1
        coefficients, total = torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.empty(1, 2, dtype=torch.float64)
        _cpu.launch(Op.GRADIENT, plan.table, read, None, _cpu.Tensors([out]), coefficients, total, 1, isa)
        torch.testing.assert_close(out, finite, rtol=0, atol=0)
        assert float(total[0, 0]) == float(finite.double().abs().sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_to_nearest_even(dtype: Any) -> None:
    """Products of a float32 strength with 16-bit values fall everywhere between two neighbours."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    x = every[every.isfinite()]
    for factor in (0.3, 1.5, 1 / 3, 0.50048828125):
        _, (found,) = penalty_and_grad([x], 0.0, factor / 2, backend="cpu")
        expected = (x.float() * torch.tensor(factor / 2).mul(2)).to(dtype)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(dtype: Any) -> None:
    g = torch.Generator().manual_seed(0)
    xs = [torch.randn(n, generator=g).to(dtype) for n in (3_000_001, 17, 0, 500_000)]
    expected, outs = launch(xs, threads=1, gradient=True)
    for threads in (2, 3, 8, 2):
        total, again = launch(xs, threads=threads, gradient=True)
        assert bits(total) == bits(expected)
        assert all(torch.equal(a, b) for a, b in zip(outs, again, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_alignment(dtype: Any) -> None:
    base = torch.randn(5000, dtype=torch.float64).to(dtype)
    for offset in (1, 3, 7):
        for n in (1, 31, 33, 1025, 4000):
            view = base[offset : offset + n]
            (total, (out,)), (copied, (copied_out,)) = (launch([v], gradient=True) for v in (view, view.clone()))
            assert bits(total) == bits(copied)
            assert torch.equal(out, copied_out)


def test_a_table_that_does_not_fit_is_refused() -> None:
    xs = [torch.ones(10)]
    table = plan_of_layout(_cpu.Tensors(xs).layout, BOTH).table
    tag = int(table[0, 3])
    for column, value in (
        (0, 11),
        (0, 1 << 24 | 10),
        (2, 1),
        (3, tag | 1 << SLOT_SHIFT),
        (3, tag + 1),
        (3, tag | MASK),
    ):
        bad = table.copy()
        bad[0, column] = value
        with pytest.raises(ValueError, match="chunk 0 of the plan does not fit"):
            launch(xs, table=bad)


def test_unreadable_lists_are_refused() -> None:
    with pytest.raises(TypeError):
        _cpu.Tensors([1.0])
    with pytest.raises(TypeError):
        _cpu.Tensors([torch.ones(2, dtype=torch.int8)])
    with pytest.raises(ValueError, match="differ in length"):
        _cpu.Tensors([None], like=_cpu.Tensors([]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_does_not_hang() -> None:
    """The parent has used threads; the child uses them again. OpenMP would wait for ever here."""
    code = """
import os, signal, torch
from fused_penalty.torch import sums
torch.set_num_threads(4)
big = [torch.ones(4_000_000)]
sums(big, backend="cpu")
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    os._exit(0 if float(sums(big, backend="cpu").abs[0]) == 4e6 else 1)
print(os.waitpid(pid, 0)[1])
"""  # a process of its own: JAX, if it was imported here, warns of every fork
    assert run_fresh(code) == "0"


def test_calls_from_many_python_threads() -> None:
    import concurrent.futures

    xs = [torch.full((1_500_000,), 0.5) for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sums(xs, backend="cpu").abs.tolist(), range(12)))
    assert found == [[750_000.0] * 2] * 12


def test_more_than_two_to_the_31_elements() -> None:
    """Bytes suffice to show 64-bit indexing: 2**31 + 3 halves are 4 GiB, all zero but three."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if available < 6 << 30:
        pytest.skip(f"needs 6 GiB of free memory, {available >> 30} GiB are free")
    x = torch.zeros(2**31 + 3, dtype=torch.float16)
    x[0], x[2**31], x[-1] = 1, 2, 4
    s = sums([x], backend="cpu")
    assert (float(s.abs[0]), float(s.square[0])) == (7.0, 21.0)


def test_python_and_native_agree_on_dtypes() -> None:
    for code, dtype in enumerate(getattr(torch, row.name) for row in TABLE):
        word = np.frombuffer(_cpu.Tensors([torch.zeros(5, dtype=dtype)]).layout, np.uint64)[0]
        assert (int(word) >> BITS, int(word) & MASK) == (5, code)
    assert sys.byteorder == "little"
