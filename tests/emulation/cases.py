"""The cases that the CUDA kernels run in the emulators, and what is true of them."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from fused_penalty._core.operations import Op
from tests.emulation.harness import CHUNK, READS, WRITES, Case, Result
from tests.support import edges, oracle
from tests.support.check import close_gradient
from tests.support.frontends import DTYPES

FLOAT8 = {name: np.dtype(getattr(ml_dtypes, name)) for name in ("float8_e4m3fn", "float8_e5m2")}  # only read
THREADS, PACK = 256, 16  # of kernels/cuda: threads of a block, bytes of a load


def sizes(dtype: np.dtype) -> list[int]:
    """Around every edge of the walk: a pack, a row of packs, a group of four rows, a chunk."""
    pack = PACK // dtype.itemsize
    borders = (pack, pack * THREADS, CHUNK)
    return sorted({k for n in borders for k in (0, 1, 3, n - 1, n, n + 1, 3 * n, 8 * n + 2)})


def matrix(op: Op, dtype: np.dtype, anchored: bool) -> Case:
    """All sizes of one dtype, at all offsets from 16 bytes."""
    rng = np.random.default_rng(op)
    leaves = [rng.standard_normal(n).astype(dtype) for n in sizes(dtype)]
    anchors = [rng.standard_normal(x.size).astype(dtype) for x in leaves] if anchored else None
    return Case(op, leaves, anchors, skew=[i % (PACK // dtype.itemsize) for i in range(len(leaves))])


def edge_case(op: Op, dtype: np.dtype) -> Case:
    """The shared list of edge cases, cut to what an emulator runs in seconds."""
    leaves = [x.ravel()[: 2 * CHUNK + 5] for _, x in edges.edge_leaves(dtype)]
    return Case(op, leaves)


def worst(dtype: np.dtype) -> Case:
    """Each accumulator gets 1 and then 31 numbers that it would lose, did it not go to float64 halfway; and
    squares of which 16 pass what float32 holds."""
    x = np.full((32, THREADS * PACK // dtype.itemsize), 2.0**-24 * 0.999)
    x[0] = 1
    leaves = [x.ravel(), np.full(3300, 1.5e19)] if dtype != np.float16 else [x.ravel()]
    return Case(Op.SUMS, [leaf.astype(dtype) for leaf in leaves], chunk=x.size)


def mixed(op: Op) -> Case:
    """Dtypes mixed in one launch; leaves share slots; one gradient is not wanted; one term is absent."""
    rng = np.random.default_rng(7)
    leaves = [rng.standard_normal(n).astype(d) for n in (5, 3000, 9000) for d in DTYPES.values()]
    slots = [i % 3 for i in range(len(leaves))]
    strengths = np.array([[0.3, 0.7], [0.0, 0.25], [2.0, 0.5]])
    return Case(op, leaves, slots=slots, strengths=strengths, terms=2, absent=[1, 4], wide=False)


def many(op: Op, leaves: int) -> Case:
    """More leaves than a small launch holds addresses."""
    return Case(op, [np.full(3, i % 7, np.float32) for i in range(leaves)], slots=[0] * leaves, capacity=4000)


def every_case() -> Iterator[tuple[str, Case]]:
    for op in Op:
        verb = op.name.lower()
        for name, dtype in DTYPES.items():
            for anchored in (False, True):
                yield f"{verb}-{name}{'-anchored' if anchored else ''}", matrix(op, dtype, anchored)
            yield f"{verb}-{name}-edges", edge_case(op, dtype)
        yield f"{verb}-mixed", mixed(op)
    for op in READS:
        for name, dtype in FLOAT8.items():
            for anchored in (False, True):
                yield f"{op.name.lower()}-{name}{'-anchored' if anchored else ''}", matrix(op, dtype, anchored)
            every = np.arange(256, dtype=np.uint8).view(dtype)
            finite = every[np.isfinite(every.astype(np.float64))]
            yield f"{op.name.lower()}-{name}-each", Case(op, [finite[i : i + 1] for i in range(len(finite))])
    for name, dtype in DTYPES.items():
        yield f"sums-{name}-worst", worst(dtype)


def check(case: Case, result: Result) -> None:
    """Against the float64 oracle, within the contract's bounds."""
    assert result.one == 1.0
    assert case.slots is not None
    anchors = case.anchors or [None] * len(case.leaves)
    truth = [oracle.stats(x, a) for x, a in zip(case.leaves, anchors, strict=True)]
    wide = all(x.dtype == np.float64 for x in case.leaves)
    found = result.totals
    for slot in range(case.plan.slot_count):
        mine = np.array([t for t, s in zip(truth, case.slots, strict=True) if s == slot])
        for k in (0, 1):
            expected = oracle.exact_sum(mine[:, k])
            if case.wide or abs(expected) < 1e38:
                np.testing.assert_allclose(found[slot, k], expected, rtol=1e-13 if wide else 1e-6, atol=1e-37)
        if case.op is Op.STATS:
            np.testing.assert_allclose(found[slot, 2], mine[:, 2].max(), rtol=2.0**-23)
            counts = found[slot, 3:] if case.wide else found[slot, 3:].copy().view(np.uint32)
            np.testing.assert_array_equal(counts, mine[:, 3:].sum(axis=0))
    for i, out in enumerate(result.outs):
        if i not in case.absent:
            check_written(case, i, out)


def check_written(case: Case, i: int, out: np.ndarray) -> None:
    assert case.strengths is not None
    assert case.slots is not None
    x, anchor = case.leaves[i], case.anchors[i] if case.anchors else None
    a, b = case.strengths.astype(case.real)[case.slots[i]].astype(np.float64)
    if case.op is Op.PROX:
        exact = oracle.prox(x, a, (1 / b - 1) / 2, 1.0, anchor)
    elif case.op is Op.REGULARIZE:
        exact = oracle.regularized(x, a, b if case.terms & 2 else 0.0, anchor)
    else:
        exact = oracle.gradient(x, a if case.terms & 1 else 0.0, b / 2 if case.terms & 2 else 0.0, anchor)
    scale = None
    if case.op is Op.ADD_GRADIENT:
        assert case.olds is not None
        scale = np.abs(exact) + np.abs(case.olds[i].astype(np.float64))
        exact = exact + case.olds[i].astype(np.float64)
    elif case.op in WRITES[2:]:
        scale = np.abs(x.astype(np.float64)) + (0 if anchor is None else np.abs(anchor.astype(np.float64)))
    close_gradient(out, exact, x.dtype.name, scale)


def same_bits(a: Result, b: Result) -> None:
    assert a.totals.tobytes() == b.totals.tobytes()
    for g, h in zip(a.outs, b.outs, strict=True):
        assert g.tobytes() == h.tobytes()
