"""The Triton kernel compiled for GPUs that are not here: its machine code, and its PTX run by ptxemu."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

from fused_penalty._core.backends import TRITON_DEVICES
from fused_penalty._core.operations import Op
from fused_penalty._core.plan import GPU_CHUNK
from tests.emulation.artefact import NEEDED, PAGE, cuobjdump
from tests.emulation.cases import FLOAT8, check, many, mixed
from tests.emulation.harness import CHUNK, WRITES, Case, Result, build, emulate, toolkit
from tests.emulation.ptx import emulator as ptxemu
from tests.support.frontends import DTYPES
from tests.triton import aot as triton_aot
from tests.triton.aot import AMD, NVIDIA, THREADS, compiled, run_ptx
from tests.triton.artefact import MARK, measure

pytestmark = pytest.mark.skipif(TRITON_DEVICES == ("cpu",), reason="the interpreter is on: nothing is compiled")

needs_nvcc = pytest.mark.skipif(toolkit() is None, reason="the emulated CUDA source needs nvcc's headers")
# Every operation for one architecture; for the others the lightest and the heaviest.
EVERY = [(90, op, anchored) for op in Op for anchored in (False, True)]
EXTREMES = [(Op.SUMS, False), (Op.ADD_GRADIENT, True)]
FEW = [(arch, *extreme) for arch in NVIDIA if arch != 90 for extreme in EXTREMES]


def named(rows: list[tuple[int | str, Op, bool]]) -> list[object]:
    return [pytest.param(*r, id=f"{r[0]}-{r[1].name.lower()}{'-anchored' if r[2] else ''}") for r in rows]


def case_of(op: Op, dtype: np.dtype, anchored: bool) -> Case:
    """Sizes around a row and a group of rows, on and off multiples of 16 bytes, and values at every branch."""
    rng = np.random.default_rng(11)
    pack = 16 // dtype.itemsize
    row = THREADS * pack
    special = np.array([0.0, -0.0, 0.3, -0.3, 0.29, 0.31, 1.0, -1.0, np.inf, -np.inf, np.nan]).astype(dtype)
    leaves = [rng.standard_normal(n).astype(dtype) for n in (0, 1, row - 1, CHUNK, 2 * CHUNK + 3, row + 1)]
    leaves.append(special)
    anchors = [rng.standard_normal(x.size).astype(dtype) for x in leaves] if anchored else None
    if anchors is not None:
        anchors[1][:] = leaves[1]  # a displacement of zero
    return Case(op, leaves, anchors, skew=[0, 1, 0, 0, 1, pack - 1, 0])


def finite(case: Case, result: Result) -> None:
    """The oracle's bounds, without the leaf that is not finite."""
    last = len(case.leaves) - 1
    anchors = None if case.anchors is None else case.anchors[:last]
    olds = None if case.olds is None else case.olds[:last]
    assert case.strengths is not None
    skew = [s // x.itemsize for s, x in zip(case.skew, case.leaves, strict=True)][:last]
    strengths = case.strengths[:last]
    check(
        Case(case.op, case.leaves[:last], anchors, strengths=strengths, skew=skew, olds=olds),
        Result(result.totals[:last], result.one, result.outs[:last]),
    )


def same_values(found: np.ndarray, expected: np.ndarray) -> None:
    """The same bits; a NaN is a NaN."""
    word = f"u{found.itemsize}"
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(found[numbers].view(word), expected[numbers].view(word))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("emulated"))


@needs_nvcc
@pytest.mark.parametrize(("arch", "op", "anchored"), named([*EVERY, *FEW]))
def test_writes_the_bits_of_cuda(program: Path, tmp_path: Path, arch: int, op: Op, anchored: bool, dtype: str) -> None:
    """One element's mathematics, written twice (elastic_net.h, elastic_net.py), gives the same bits."""
    case = case_of(op, DTYPES[dtype], anchored)
    source = emulate(program, case, tmp_path)
    assert isinstance(source, Result), source
    found = run_ptx(case, arch)
    finite(case, found)
    for g, h in zip(found.outs, source.outs, strict=True):
        same_values(g, h)
    np.testing.assert_allclose(found.totals, source.totals, rtol=1e-13 if dtype == "float64" else 1e-6)
    if op is Op.STATS:
        np.testing.assert_array_equal(found.totals[:, 2:], source.totals[:, 2:])


@pytest.mark.parametrize("op", [Op.SUMS, Op.STATS], ids=["sums", "stats"])
@needs_nvcc
def test_adds_in_the_order_of_cuda(program: Path, tmp_path: Path, op: Op, dtype: str) -> None:
    """In whole rows a lane adds the same elements in float32 as a thread of the CUDA kernel does. What differs is the
    order of the float64 additions across lanes: some 1e-15, where another order in float32 shows as 1e-8."""
    rng = np.random.default_rng(4)
    row = THREADS * 16 // DTYPES[dtype].itemsize
    case = Case(op, [rng.standard_normal(k * row).astype(DTYPES[dtype]) for k in (1, 2, 4, 8)])
    source = emulate(program, case, tmp_path)
    assert isinstance(source, Result), source
    np.testing.assert_allclose(run_ptx(case, 90).totals, source.totals, rtol=1e-14)


@pytest.mark.parametrize("op", [Op.SUMS, Op.ADD_GRADIENT, Op.STATS], ids=["sums", "add_gradient", "stats"])
def test_mixed_dtypes_and_the_grid(op: Op) -> None:
    """Warps run in random order, which shows a missing barrier; grids differ, the bits do not."""
    case = dataclasses.replace(mixed(op), wide=True)
    first = run_ptx(case, 90, grid=1)
    check(case, first)
    for grid, gran, seed in ((5, "warp", 1), (64, "block", 2)):
        other = run_ptx(case, 90, grid=grid, gran=gran, seed=seed)
        assert other.totals.tobytes() == first.totals.tobytes()
        assert [o.tobytes() for o in other.outs] == [o.tobytes() for o in first.outs]


@needs_nvcc
@pytest.mark.parametrize("op", [Op.SUMS, Op.STATS], ids=["sums", "stats"])
@pytest.mark.parametrize("name", FLOAT8)
def test_leaves_of_8_bits(program: Path, tmp_path: Path, name: str, op: Op) -> None:
    """Beside one of each other dtype, in the kernel that is compiled for them."""
    rng = np.random.default_rng(6)
    every = np.arange(256, dtype=np.uint8).view(FLOAT8[name])
    numbers = every[np.isfinite(every.astype(np.float64))]
    leaves = [numbers[i : i + 1] for i in range(len(numbers))]
    leaves += [rng.standard_normal(n).astype(FLOAT8[name]) for n in (2047, CHUNK, 2 * CHUNK + 3)]
    leaves += [rng.standard_normal(50).astype(d) for d in DTYPES.values()]
    case = Case(op, leaves)
    found = run_ptx(case, 90)
    check(case, found)
    source = emulate(program, case, tmp_path)
    assert isinstance(source, Result), source
    np.testing.assert_allclose(found.totals, source.totals, rtol=1e-6)


def test_a_written_leaf_beside_one_of_8_bits_that_is_only_read() -> None:
    rng = np.random.default_rng(7)
    leaves = [rng.standard_normal(n).astype(d) for n, d in ((5000, np.float32), (5000, FLOAT8["float8_e5m2"]))]
    check(case := Case(Op.PROX, leaves, absent=[1]), run_ptx(case, 90))


def test_a_missing_barrier_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: without barriers, warps in random order read what is not there yet."""
    code = compiled(90, Op.SUMS, False).asm["ptx"]
    broken = re.sub(r"bar\.sync\s+0;", "", code)
    assert broken != code
    monkeypatch.setattr(triton_aot, "module", lambda *_: ptxemu.Module(broken))
    case = dataclasses.replace(mixed(Op.SUMS), wide=True)
    with pytest.raises((AssertionError, ptxemu.PtxError)), np.errstate(invalid="ignore"):
        check(case, run_ptx(case, 90, gran="warp", seed=1))


def test_alignment_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    leaves = [rng.standard_normal(9000).astype(np.float32)]
    results = [run_ptx(Case(Op.PROX, leaves, skew=[k]), 90) for k in (0, 1)]
    assert results[0].totals.tobytes() == results[1].totals.tobytes()
    assert results[0].outs[0].tobytes() == results[1].outs[0].tobytes()


@pytest.mark.parametrize("op", [Op.SUMS, Op.GRADIENT], ids=["sums", "gradient"])
def test_offsets_of_more_than_32_bits(op: Op) -> None:
    """The last elements of a leaf of 2³⁸."""
    rng = np.random.default_rng(3)
    case = Case(op, [rng.standard_normal(2 * CHUNK + 5).astype(np.float16)])
    check(case, run_ptx(case, 90, ahead=1 << 38))


@pytest.mark.parametrize("slots", ["one", "each"])
def test_hundreds_of_leaves(slots: str) -> None:
    """More slots, and more chunks of one slot, than the last program adds up at once."""
    case = many(Op.SUMS, 300)
    if slots == "each":
        case = Case(Op.SUMS, case.leaves)
    check(case, run_ptx(case, 90))


def test_no_lane_adds_more_than_32() -> None:
    assert GPU_CHUNK * 8 <= 32 * THREADS * 16


def test_partials_before_the_ticket() -> None:
    """A barrier of the whole program stands between; the ticket is released and acquired."""
    code = compiled(90, Op.SUMS, False).asm["ptx"]
    before, ticket, after = re.split(r"(atom\.global\.\S*add\S*)", code)
    assert ".acq_rel" in ticket
    assert ".gpu" in ticket
    assert "bar.sync" in before[before.rindex("st.global") :]
    assert "ld.global.cg" in after
    assert "ld.global.cg" not in before


@pytest.mark.parametrize(
    ("arch", "op", "anchored"),
    named([*EVERY, *FEW, (80, Op.ADD_GRADIENT, False), *((arch, *extreme) for arch in AMD for extreme in EXTREMES)]),
)
def test_machine_code(arch: int | str, op: Op, anchored: bool) -> None:
    if isinstance(arch, int) and cuobjdump() is None:
        pytest.skip("needs cuobjdump, which Triton's package carries")
    row = measure(arch, op, anchored)
    arrays = 1 + anchored + (op is Op.ADD_GRADIENT)
    assert row.scratch == 0, row
    assert row.vector_loads >= 4 * 4 * arrays, row  # four rows of each array in each of four dtypes
    assert (row.vector_stores >= 4 * 4) == (op in WRITES), row
    if row.in_flight is not None:
        assert row.in_flight >= NEEDED[row.arch], row


def test_the_page_holds_the_table() -> None:
    table = PAGE.read_text().split(MARK)[1]
    for arch in (*(f"sm_{a}" for a in NVIDIA), *AMD):
        assert table.count(f"| {arch} |") == 2 * len(Op)
