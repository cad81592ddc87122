"""Every torch verb on every layout of leaves, anchors, gradients and outputs, against float64 formulas in NumPy.

5,000 lists, or FUSED_PENALTY_EXAMPLES; a failure prints the list's number and recipe, and FUSED_PENALTY_LIST=number
runs that list alone. Triton's interpreter is slow and runs few of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn

from fused_penalty.torch import (
    add_grad_,
    clip_grad_norm_,
    global_norm,
    penalty,
    penalty_and_grad,
    prox_,
    regularize_,
    stats,
    sums,
)
from tests.support import frontends, oracle
from tests.support.check import close_gradient
from tests.torch_only.layouts import BITS, LAYOUTS, Case, Made, case

SEED, BATCHES, STEP, MAX_NORM = 11, 8, 0.5, 1.0
EXAMPLES = int(os.environ.get("FUSED_PENALTY_EXAMPLES", "5000"))
ALONE = os.environ.get("FUSED_PENALTY_LIST")
SHARE = {"cpu": 0.85, "reference": 0.145, "triton": 0.005}


def numbers(backend: str, batch: int) -> Iterator[int]:
    """The lists of a batch. Each backend has lists of its own."""
    if ALONE is not None:
        return iter([int(ALONE)] if batch == 0 else [])
    first = 10**9 * list(SHARE).index(backend)
    return iter(range(first + batch, first + max(BATCHES, round(EXAMPLES * SHARE[backend])), BATCHES))


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("backend", frontends.on_cpu("torch"))
def test_every_verb_on_every_layout(backend: str, batch: int) -> None:
    for number in numbers(backend, batch):
        made = case(SEED, number)
        try:
            read(made, backend)
            for write in WRITES:
                written(made, backend, write)
            clipped(made, backend)
        except BaseException as error:
            error.add_note(f"FUSED_PENALTY_LIST={number}, backend {backend!r}, seed {SEED}:\n{made.recipe}")
            raise


def back(x: Tensor) -> np.ndarray:
    """In row-major order, with the dtype; not by the views that are under test."""
    x = x.detach().resolve_neg().clone(memory_format=torch.contiguous_format)
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view(frontends.DTYPES["bfloat16"])
    return x.numpy()


def strides(x: Tensor) -> list[int]:
    """Where they mean something."""
    return [step for step, n in zip(x.stride(), x.shape, strict=True) if n > 1 and x.numel()]


def value_is(found: Tensor, expected: Any, kinds: set[str]) -> None:
    """The contract's bounds, for many values at once; float64 leaves among others are not summed more exactly."""
    assert found.dtype is (torch.float64 if "float64" in kinds else torch.float32)
    bound = 1e-13 if kinds == {"float64"} else 1e-6
    expected = np.array(expected, np.float64)
    values = found.detach().double().numpy()
    assert values.shape == expected.shape
    assert (np.abs(values - expected) <= bound * np.abs(expected)).all(), f"{values} is not {expected}"


def truths(c: Case) -> tuple[list[np.ndarray], list[np.ndarray] | None, float]:
    xs, anchors = [m.values for m in c.leaves], None if c.anchors is None else [a.values for a in c.anchors]
    return xs, anchors, oracle.penalty(xs, c.l1, c.l2, anchors)


def read(c: Case, backend: str) -> None:
    """The verbs that only read; nothing may have changed after them."""
    before = [flat.tobytes() for flat in c.memories]
    xs, anchors, value = truths(c)
    given, kinds = [m.tensor for m in c.leaves], {m.dtype for m in c.leaves}
    kw: dict[str, Any] = {"backend": backend}
    if c.anchors is not None:
        kw["anchor"] = [a.tensor for a in c.anchors]
    with torch.no_grad():
        value_is(penalty(given, c.l1, c.l2, **kw), value, kinds)
    found, grads = penalty_and_grad(given, c.l1, c.l2, **kw)
    value_is(found, value, kinds)
    leaves = [x.detach().requires_grad_() for x in given]
    learned = [a.detach().requires_grad_() for a in kw.get("anchor", [])]
    found = penalty(leaves, c.l1, c.l2, **{**kw, "anchor": learned or None})
    value_is(found, value, kinds)
    (found + sum(0.0 * x.sum() for x in [*leaves, *learned])).backward()  # a penalty of strengths 0 records nothing
    totals, table = sums(given, **kw), stats(given, **kw)
    for i, x in enumerate(xs):
        anchor = None if anchors is None else anchors[i]
        gradient, dtype = oracle.gradient(x, c.l1[i], c.l2[i], anchor), c.leaves[i].dtype
        close_gradient(back(grads[i]), gradient, dtype)
        assert strides(grads[i]) == strides(torch.empty_like(given[i]))  # as the custom op promises torch.compile
        close_gradient(back(leaves[i].grad), gradient, dtype)
        if learned:
            close_gradient(back(learned[i].grad), -gradient, dtype)
    truth = [oracle.stats(x, None if anchors is None else anchors[i]) for i, x in enumerate(xs)]
    absolute, square, largest, zeros, nonfinite = zip(*truth, strict=True)
    for got in (totals, table):
        value_is(torch.stack([got.abs, got.square]), [absolute, square], kinds)
    value_is(table.max, largest, kinds)
    value_is(global_norm(given, backend=backend), np.sqrt(sum(oracle.sums(x)[1] for x in xs)), kinds)
    assert (table.zeros.tolist(), table.nonfinite.tolist()) == (list(zeros), list(nonfinite))
    assert table.size == tuple(x.size for x in xs)
    assert [flat.tobytes() for flat in c.memories] == before


# verb -> (the function, and what it leaves of x and g in float64, with the magnitude of the terms)
Truth = Callable[[np.ndarray, np.ndarray, float, float, Any], tuple[np.ndarray, np.ndarray]]


def _added(x: np.ndarray, g: np.ndarray, l1: float, l2: float, anchor: Any) -> tuple[np.ndarray, np.ndarray]:
    wide, extra = g.astype(np.float64), oracle.gradient(x, l1, l2, anchor)
    return wide + extra, np.abs(wide) + np.abs(extra)


def _magnitude(x: np.ndarray, anchor: Any) -> np.ndarray:
    return np.abs(x.astype(np.float64)) + (0 if anchor is None else np.abs(anchor.astype(np.float64)))


def _proximal(x: np.ndarray, g: np.ndarray, l1: float, l2: float, anchor: Any) -> tuple[np.ndarray, np.ndarray]:
    return oracle.prox(x, l1, l2, STEP, anchor), _magnitude(x, anchor)


def _regularized(x: np.ndarray, g: np.ndarray, l1: float, l2: float, anchor: Any) -> tuple[np.ndarray, np.ndarray]:
    return oracle.regularized(x, l1, l2, anchor), _magnitude(x, anchor)


WRITES: dict[Any, Truth] = {add_grad_: _added, prox_: _proximal, regularize_: _regularized}


def written(c: Case, backend: str, verb: Any) -> None:
    """The verbs that write. What cannot be written is refused and nothing changes; then it is only read."""
    adding = verb is add_grad_
    outs = c.grads if adding else c.leaves
    reads = [*(c.leaves if adding else []), *(c.anchors or [])]
    kept = [m.repeats for m in outs]
    if any(kept):
        refused(c, backend, verb, [False] * len(outs))
    live = [m for m, keep in zip(outs, kept, strict=True) if not keep]
    rest = reads + [m for m, keep in zip(c.leaves, kept, strict=True) if keep and not adding]
    if any(m.shares(o) for i, m in enumerate(live) for o in [*live[i + 1 :], *rest]):
        refused(c, backend, verb, kept)
        return
    xs, anchors, value = truths(c)
    memories, before = c.memories, [flat.copy() for flat in c.memories]
    expected = []
    for i, (x, g) in enumerate(zip(xs, c.grads, strict=True)):
        expected.append(WRITES[verb](x, g.values, c.l1[i], c.l2[i], None if anchors is None else anchors[i]))
    value_is(call(c, backend, verb, kept), value, {m.dtype for m in c.leaves})
    for m, (truth, scale) in zip(outs, expected, strict=True):
        if not m.repeats:
            close_gradient(m.values, truth, m.dtype, scale)
    for flat, old in zip(memories, before, strict=True):  # all that no output holds, bit by bit
        outside = np.ones(flat.size, bool)
        for m in live:
            if m.flat is flat:
                outside[m.index.ravel()] = False
        assert flat[outside].tobytes() == old[outside].tobytes()
        flat[:] = old


def clipped(c: Case, backend: str) -> None:
    """`clip_grad_norm_` of the gradients that can be written."""
    live = [g for g in c.grads if not g.repeats]
    if any(g.shares(o) for i, g in enumerate(live) for o in live[i + 1 :]):
        return  # refused, as add_grad_ refuses it
    given = [nn.Parameter(torch.zeros(g.tensor.shape, dtype=g.tensor.dtype)) for g in live]
    for p, g in zip(given, live, strict=True):
        p.grad = g.tensor
    memories, before = [g.flat for g in live], [g.flat.copy() for g in live]
    values = [g.values for g in live]
    norm = float(np.sqrt(sum(oracle.sums(x)[1] for x in values)))
    found = clip_grad_norm_(given, MAX_NORM, backend=backend)
    if live:
        value_is(found, norm, {g.dtype for g in live})
    factor = min(float(MAX_NORM / (found + 1e-6)), 1.0)
    for g, x in zip(live, values, strict=True):
        close_gradient(g.values, x.astype(np.float64) * factor, g.dtype)
    for flat, old in zip(memories, before, strict=True):
        outside = np.ones(flat.size, bool)
        for g in live:
            if g.flat is flat:
                outside[g.index.ravel()] = False
        assert flat[outside].tobytes() == old[outside].tobytes()
    for flat, old in zip(memories, before, strict=True):
        flat[:] = old


def call(c: Case, backend: str, verb: Any, kept: list[bool]) -> Any:
    """`kept`: leaves that are only read, frozen parameters, or for add_grad_ leaves without a gradient."""
    given = []
    for m, g, keep in zip(c.leaves, c.grads, kept, strict=True):
        x = m.tensor.detach()
        if verb is add_grad_:
            x.grad = None if keep else g.tensor.detach()
        given.append(nn.Parameter(x, requires_grad=False) if keep and verb is not add_grad_ else x)
    kw: dict[str, Any] = {} if c.anchors is None else {"anchor": [a.tensor for a in c.anchors]}
    if verb is prox_:
        kw["step"] = STEP
    return verb(given, c.l1, c.l2, backend=backend, **kw)


def refused(c: Case, backend: str, verb: Any, kept: list[bool]) -> None:
    before = [flat.tobytes() for flat in c.memories]
    with pytest.raises(ValueError, match=r"holds an element twice|shares elements with|cannot be proved"):
        call(c, backend, verb, kept)
    assert [flat.tobytes() for flat in c.memories] == before


def test_the_lists_have_every_layout_in_every_role() -> None:
    seen: set[tuple[str, str]] = set()
    bits: set[tuple[str, str]] = set()
    shared = 0
    for number in range(400):
        c = case(SEED, number)
        for role, mades in (("leaf", c.leaves), ("anchor", c.anchors or []), ("gradient", c.grads)):
            for m in mades:
                name, kind = m.recipe.split()[:2]
                seen.add((role, name))
                bits.add((role, kind))
        shared += sum(m.shares(o) for m in c.leaves for o in [*c.leaves, *c.grads, *(c.anchors or [])] if m is not o)
    roles = ("leaf", "anchor", "gradient")
    assert seen == {(role, name) for role in roles for name in LAYOUTS}
    assert bits == {(role, kind) for role in roles for kind in BITS}
    assert shared > 20


def test_the_memory_is_what_torch_reads() -> None:
    """The harness itself: NumPy's index and torch's view name the same elements."""
    for number in range(300):
        c = case(SEED, number)
        mades: list[Made] = [*c.leaves, *(c.anchors or []), *c.grads]
        for m in mades:
            assert m.tensor.is_neg() == (m.sign < 0)
            assert back(m.tensor).tobytes() == m.values.tobytes(), m.recipe
