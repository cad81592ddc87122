"""Every torch verb as a function of leaves, with its result by the float64 formulas; for test_modes.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

import fused_penalty as fp
from fused_penalty.torch import (
    add_grad_,
    attach,
    clip_grad_norm_,
    global_norm,
    penalty,
    penalty_and_grad,
    prox_,
    regularize_,
    stats,
    sums,
)
from tests.support import oracle

L1, L2, STEP = 0.25, 0.125, 0.5  # exact in every dtype
MAX_NORM = 0.75
Leaves = Sequence[Tensor]
Arrays = Sequence[np.ndarray]


def leaves(seed: int = 0) -> list[Tensor]:
    """Of three dtypes, with zeros; the device is named, since some modes change the default."""
    rng = np.random.default_rng(seed)
    found = []
    for shape, dtype in (((3, 4), torch.float32), ((5,), torch.bfloat16), ((2, 3), torch.float16)):
        x = rng.standard_normal(shape).astype(np.float32)
        x.flat[1] = 0
        found.append(torch.from_numpy(x).to(dtype))
    return found


def array(x: Tensor) -> np.ndarray:
    """Of the values, in the leaf's own dtype."""
    x = x.detach()
    if x.dtype == torch.bfloat16:
        return x.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy().copy()


@dataclass(frozen=True)
class Verb:
    """`call(*leaves)` returns tensors: the results, and then what was written. `expect(*arrays)` gives their values.

    `finish(results, leaves)` makes further results after the call, outside of a transform.
    """

    call: Callable[..., list[Tensor]]
    expect: Callable[..., list[Any]]
    requires_grad: bool = False
    setup: Callable[[Leaves], Callable[[], list[Tensor]]] | None = None  # what need not be compiled
    finish: Callable[[list[Tensor], Leaves], list[Tensor]] = lambda results, xs: results
    derivative: Callable[[np.ndarray], np.ndarray] | None = None  # of the first result; None: it is detached


def _value(xs: Arrays) -> float:
    return oracle.penalty(xs, [L1] * len(xs), [L2] * len(xs))


def _gradients(xs: Arrays) -> list[np.ndarray]:
    return [oracle.gradient(x, L1, L2) for x in xs]


def _backward(results: list[Tensor], xs: Leaves) -> list[Tensor]:
    results[0].backward()
    return [*results, *(x.grad for x in xs if x.grad is not None)]


def _penalty_and_grad(*xs: Tensor) -> list[Tensor]:
    value, grads = penalty_and_grad(xs, L1, L2)
    return [value, *(g for g in grads if g is not None)]


def _add_grad(*xs: Tensor) -> list[Tensor]:
    """To gradients that are the leaves themselves."""
    for x in xs:
        x.grad = x.detach().clone()
    return [add_grad_(xs, L1, L2), *(x.grad for x in xs if x.grad is not None)]


def _clip(*xs: Tensor) -> list[Tensor]:
    """Gradients that are the leaves themselves."""
    for x in xs:
        x.grad = x.detach().clone()
    return [clip_grad_norm_(xs, MAX_NORM), *(x.grad for x in xs if x.grad is not None)]


def _norm(xs: Arrays) -> float:
    return float(np.sqrt(sum(oracle.sums(x)[1] for x in xs)))


def _clipped(*xs: np.ndarray) -> list[Any]:
    factor = min(MAX_NORM / _norm(xs), 1.0)
    return [_norm(xs), *(factor * x.astype(np.float64) for x in xs)]


def _steps(mode: str) -> Callable[[Leaves], Callable[[], list[Tensor]]]:
    """An optimizer's step with gradients that are the leaves themselves."""

    def setup(xs: Leaves) -> Callable[[], list[Tensor]]:
        for x in xs:
            x.grad = x.detach().clone()
        optimizer = torch.optim.SGD(list(xs), lr=STEP, foreach=False)
        handle = attach(optimizer, L1, L2, mode=mode)

        def step() -> list[Tensor]:
            optimizer.step()
            assert handle.penalty is not None
            return [handle.penalty, *xs]

        return step

    return setup


def _step(mode: str) -> Callable[..., list[Tensor]]:
    return lambda *xs: _steps(mode)(xs)()


def _rounded(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    return x.astype(like.dtype).astype(np.float64)


def _after_grad_step(x: np.ndarray) -> np.ndarray:
    gradient = _rounded(x.astype(np.float64) + oracle.gradient(x, L1, L2), x)
    return x.astype(np.float64) - STEP * gradient


def _stepped(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float64) * (1 - STEP)).astype(x.dtype)


def _after_prox_step(x: np.ndarray) -> np.ndarray:
    return oracle.prox(_stepped(x), L1, L2, STEP)


def _stats(*xs: Tensor) -> list[Tensor]:
    return list(stats(xs)[:5])


def _prox(*xs: Tensor) -> list[Tensor]:
    return [prox_(xs, L1, L2, step=STEP), *xs]


def _regularize(*xs: Tensor) -> list[Tensor]:
    return [regularize_(xs, L1, L2), *xs]


def _transposed(rows: list[tuple[Any, ...]]) -> list[np.ndarray]:
    return [np.array(column) for column in zip(*rows, strict=True)]


def _slope(x: np.ndarray) -> np.ndarray:
    return oracle.gradient(x, L1, L2)


NORM = _norm([array(x) for x in leaves()])  # of those that derivatives are taken at

VERBS: dict[str, Verb] = {
    "penalty": Verb(
        lambda *xs: [penalty(xs, L1, L2)], lambda *xs: [_value(xs)], derivative=_slope
    ),
    "penalty of named leaves": Verb(
        lambda a, b, c: [penalty({"a": a, "b": b, "c": c}, fp.by_path({"*": L1}), {"a": L2, "b": L2, "c": L2})],
        lambda *xs: [_value(xs)],
        derivative=_slope,
    ),
    "penalty with tensor strengths": Verb(
        lambda *xs: [penalty(xs, xs[0].new_full((), L1), xs[0].new_full((), L2))],
        lambda *xs: [_value(xs)],
        derivative=_slope,
    ),
    "penalty and backward": Verb(
        lambda *xs: [penalty(xs, L1, L2)], lambda *xs: [_value(xs), *_gradients(xs)], requires_grad=True,
        finish=_backward, derivative=_slope,
    ),
    "penalty of nothing": Verb(
        lambda *xs: [penalty([], L1, L2), penalty(xs, L1, mask=False), *sums([])[:2]],
        lambda *xs: [0.0, 0.0, np.zeros(0), np.zeros(0)],
        derivative=lambda x: np.zeros(x.shape),
    ),
    "penalty with an anchor": Verb(
        lambda *xs: [penalty(xs, L1, L2, anchor=[x.new_ones(x.shape) for x in xs])],
        lambda *xs: [oracle.penalty(xs, [L1] * 3, [L2] * 3, [np.ones_like(x) for x in xs])],
        derivative=lambda x: oracle.gradient(x, L1, L2, np.ones_like(x)),
    ),
    "L1L2": Verb(
        lambda *xs: [fp.L1L2(L1, L2)(list(xs))], lambda *xs: [_value(xs)], derivative=_slope
    ),
    "penalty_and_grad": Verb(_penalty_and_grad, lambda *xs: [_value(xs), *_gradients(xs)]),
    "sums": Verb(
        lambda *xs: list(sums(xs)[:2]), lambda *xs: _transposed([oracle.sums(x) for x in xs]),
        derivative=lambda x: np.sign(x.astype(np.float64)),
    ),
    "global_norm": Verb(
        lambda *xs: [global_norm(xs), global_norm(xs, 1), global_norm([*xs, None], float("inf"))],
        lambda *xs: [_norm(xs), sum(oracle.sums(x)[0] for x in xs), max(oracle.stats(x)[2] for x in xs)],
        derivative=lambda x: x.astype(np.float64) / NORM,
    ),
    "clip_grad_norm_": Verb(_clip, _clipped),
    "stats": Verb(_stats, lambda *xs: _transposed([oracle.stats(x) for x in xs])),
    "add_grad_": Verb(
        _add_grad, lambda *xs: [_value(xs), *(x.astype(np.float64) + _slope(x) for x in xs)]
    ),
    "prox_": Verb(_prox, lambda *xs: [_value(xs), *(oracle.prox(x, L1, L2, STEP) for x in xs)]),
    "regularize_": Verb(
        _regularize, lambda *xs: [_value(xs), *(oracle.regularized(x, L1, L2) for x in xs)]
    ),
    "attach": Verb(_step("grad"), lambda *xs: [_value(xs), *map(_after_grad_step, xs)], setup=_steps("grad")),
    "attach, prox": Verb(
        _step("prox"),
        lambda *xs: [_value([_stepped(x) for x in xs]), *map(_after_prox_step, xs)],
        setup=_steps("prox"),
    ),
}  # fmt: skip

TOLERANCE = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10, torch.float32: 1e-6, torch.int64: 0.0}


def check(found: Sequence[Tensor], expected: Sequence[Any], terms: float = 0.25) -> None:
    """To one ulp of a 16-bit dtype, else to 1e-6; relative to `terms` where they cancel."""
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert isinstance(f, Tensor)
        assert f.device.type == "cpu"
        assert f.dtype in TOLERANCE
        rtol = TOLERANCE[f.dtype]
        np.testing.assert_allclose(array(f).astype(np.float64), e, rtol=rtol, atol=rtol * terms)
