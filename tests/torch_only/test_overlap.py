"""What an in-place call refuses about memory: exact against brute force, n·log n for views of one array, bounded for
all others. Calls of the solver are counted, not timed."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from fused_penalty.torch import overlap, prox_
from fused_penalty.torch.overlap import Undecided, footprint, repeats, shared

SETTINGS = settings(max_examples=400, deadline=None, derandomize=True)


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of NumPy's solver since."""
    calls: list[Any] = []
    solve = np.shares_memory

    def counted(*args: Any, **kw: Any) -> bool:
        calls.append(kw["max_work"])
        return solve(*args, **kw)

    monkeypatch.setattr(overlap.np, "shares_memory", counted)
    return calls


def offsets(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    return [sum(i * s for i, s in zip(at, strides, strict=True)) for at in itertools.product(*map(range, shape))]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ndim = draw(st.integers(0, 4))
    shape = tuple(draw(st.lists(st.integers(0 if draw(st.booleans()) else 1, 5), min_size=ndim, max_size=ndim)))
    return shape, tuple(draw(st.lists(st.integers(0, 14), min_size=ndim, max_size=ndim)))


@given(layouts())
@SETTINGS
def test_repeats_is_exact(layout: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    found = offsets(*layout)
    assert repeats(*layout) == (len(set(found)) < len(found))


@st.composite
def views(draw: st.DrawFn) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    """Address, shape, strides, width; half of them cut from an array of 6 x 4 x 8 along its dimensions."""
    width = draw(st.sampled_from((1, 2, 4)))
    if draw(st.booleans()):
        shape, strides = draw(layouts())
        return draw(st.integers(0, 60)) * width, shape, strides, width
    array = np.zeros((6, 4, 8), f"V{width}")
    cut = tuple(slice(draw(st.integers(0, n - 1)), None, draw(st.integers(1, 3))) for n in array.shape)
    array = array[cut]
    array = array[tuple(slice(None, draw(st.integers(1, n))) for n in array.shape)]
    offset = sum(c.start * s for c, s in zip(cut, (32 * width, 8 * width, width), strict=True))
    return offset, array.shape, tuple(s // width for s in array.strides), width


@given(st.lists(st.tuples(views(), st.booleans()), min_size=1, max_size=7))
@SETTINGS
def test_shared_is_exact(given_: list[Any]) -> None:
    touched = [
        {address + width * o + byte for o in offsets(shape, strides) for byte in range(width)}
        for (address, shape, strides, width), _ in given_
    ]
    written = [w for _, w in given_]
    truth = {
        (i, j)
        for i, j in itertools.permutations(range(len(given_)), 2)
        if written[i] and touched[i] & touched[j] and (i < j or not written[j])
    }
    found = shared([footprint(*view) for view, _ in given_], written)
    assert (found is None) == (not truth)
    assert found is None or found in truth


def matrix(rows: int, columns: int) -> Any:
    return torch.ones(rows, columns)


CUT: dict[str, Callable[[], list[Any]]] = {
    "columns": lambda: list(matrix(8, 3000).unbind(1)),
    "columns of a transposed matrix": lambda: list(matrix(3000, 8).t().unbind(0)),
    "column blocks": lambda: list(matrix(8, 3000).split(3, dim=1)),
    "row blocks": lambda: list(matrix(3000, 8).split(3)),
    "even and odd rows": lambda: [
        x
        for m in matrix(
            1000,
            4,
        ).split(4)
        for x in (m[::2], m[1::2])
    ],
    "even and odd elements": lambda: [x for c in matrix(6, 2000).split(4, 1) for x in (c[:, ::2], c[:, 1::2])],
    "quarters": lambda: [m[i::2, j::2] for m in matrix(400, 6).split(4) for i in (0, 1) for j in (0, 1)],
    "tiles": lambda: [t for band in matrix(90, 90).split(3) for t in band.split(3, dim=1)],
    "channels": lambda: list(torch.ones(4, 700, 3, 3).to(memory_format=torch.channels_last).unbind(1)),
    "middle dimension": lambda: list(torch.ones(5, 700, 6).unbind(1)),
    "columns and rows": lambda: [*(m := matrix(40, 900))[:20].unbind(1), *m[20:].unbind(0)],
    "bits of several widths": lambda: [*matrix(8, 900)[:, :300].unbind(1), *matrix(8, 900).half()[:, 300:].unbind(1)],
}


@pytest.mark.parametrize("name", CUT)
def test_views_of_one_array_need_no_solver(solved: list[Any], name: str) -> None:
    parts = CUT[name]()
    prox_(parts, 0.25, backend="cpu")
    assert solved == []
    assert all(bool((x == 0.75).all()) for x in parts)


@pytest.mark.parametrize("name", CUT)
def test_and_one_shared_element_among_them_is_found(solved: list[Any], name: str) -> None:
    parts = CUT[name]()
    victim = parts[len(parts) // 2]
    extra = victim[(slice(-1, None),) * victim.ndim]
    with pytest.raises(ValueError, match=f"shares elements with '{len(parts)}'"):
        prox_([*parts, extra], 0.25, backend="cpu")
    assert solved == []
    assert all(bool((x == 1).all()) for x in parts)


def test_an_expanded_tensor_is_refused_without_a_list_of_its_elements() -> None:
    for bad in (torch.zeros(1).expand(10**8), torch.zeros(10**7 + 2).as_strided((10**7, 3), (1, 1))):
        tracemalloc.start()
        with pytest.raises(ValueError, match="holds an element twice"):
            prox_([bad], 1.0, backend="cpu")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def test_rows_whose_spans_overlap_but_not_their_elements(solved: list[Any]) -> None:
    """Steps of 2 within rows 4001 apart, each 8,000 long: odd and even rows interleave."""
    assert not repeats((5000, 4000), (4001, 2))
    assert repeats((5000, 4000), (4000, 2))
    assert len(solved) <= 2
    base = torch.ones(60)
    prox_([base.as_strided((5, 4), (9, 2))], 0.25, backend="cpu")
    assert base.sum().item() == 60 - 20 * 0.25


# Large strides without a pattern, so that a search for a combination that is 0 goes through millions and finds none.
LARGE, TWIN = ((10**12 + np.random.default_rng(seed).integers(1, 10**11, 15)).tolist() for seed in (1, 2))


def test_what_would_take_for_ever_is_refused(solved: list[Any]) -> None:
    with pytest.raises(Undecided):
        repeats((2,) * 15, LARGE)
    with pytest.raises(Undecided):
        shared([footprint(0, (2,) * 15, LARGE, 1), footprint(5, (2,) * 15, TWIN, 1)], [True, False])
    assert set(solved) == {overlap.MAX_WORK, overlap.PAIR_WORK}


def test_the_message_of_what_cannot_be_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "MAX_PAIRS", 0)
    base = torch.ones(300)
    pair = {"a": base.as_strided((5, 4), (4, 3)), "b": base[1:].as_strided((5, 4), (9, 2))}
    with pytest.raises(ValueError, match=r"params at 'a': interleaves in memory with 'b'.*cannot be proved.*clone\(\)"):
        prox_(pair, 0.25, backend="cpu")
    monkeypatch.setattr(overlap, "MAX_WORK", 1)
    one = base.as_strided((5, 4, 3), (17, 9, 7))
    with pytest.raises(ValueError, match=r"params at 'w': .*strides \[17, 9, 7\].*cannot be proved.*contiguous\(\)"):
        prox_({"w": one}, 0.25, backend="cpu")
    assert torch.equal(base, torch.ones(300))


def test_many_pairs_are_bounded(solved: list[Any]) -> None:
    """200 tensors in one span, all multiples of 2,000 bytes and their strides too: no two share, and no box tells."""
    prints = [footprint(i, (4, 3, 2), (22_000, 14_000, 10_000), 1) for i in range(200)]
    with pytest.raises(Undecided):
        shared(prints, [True] * 200)
    assert len(solved) == overlap.MAX_PAIRS
