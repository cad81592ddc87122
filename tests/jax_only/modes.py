"""Every JAX verb as a function of parameters and anchor, with its result by the float64 formulas; for test_modes.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import fused_penalty as fp
from fused_penalty.jax import global_norm, penalty, penalty_and_grad, prox, stats, sums
from fused_penalty.jax.optim import Optimizer, adam
from fused_penalty.optax import (
    add_penalty_grads,
    clip_by_global_norm,
    proximal,
    proximal_adagrad,
    proximal_adamw,
    proximal_sgd,
)
from tests.support import oracle
from tests.support.frontends import DTYPES

L1, L2, STEP = 0.3, 0.2, 0.5
Tree = dict[str, Any]


def numbers(seed: int) -> Tree:
    rng = np.random.default_rng(seed)
    w, b = rng.standard_normal((8, 3)), rng.standard_normal(16)
    return {"b": b.astype(DTYPES["bfloat16"]), "w": w.astype(np.float32)}


PARAMS, ANCHOR = numbers(0), numbers(1)


# Verb: (call on params and anchor, what float64 says). Calls return arrays alone, so that they can be transformed.


def _gradients(x: Tree, a: Tree) -> Tree:
    return {k: oracle.gradient(x[k], L1, L2, a[k]) for k in x}


def _steps(x: Tree, a: Tree, step: float) -> Tree:
    return {k: oracle.prox(x[k], L1, L2, step, a[k]) for k in x}


def _value(x: Tree, a: Tree | None) -> float:
    return oracle.penalty(list(x.values()), [L1] * 2, [L2] * 2, None if a is None else list(a.values()))


def _norm(x: Tree) -> float:
    return float(np.sqrt(sum(oracle.sums(v)[1] for v in x.values())))


def _update(transformation: Callable[..., Any], gradient: int = 0) -> Callable[..., Any]:
    """The first update, for a gradient of that value everywhere."""

    def call(p: Any, a: Any, backend: Any) -> Any:
        optimizer = transformation(a)
        return optimizer.update(jax.tree.map(lambda x: 0 * x + gradient, p), optimizer.init(p), p)[0]

    return call


def _moved(optimizer: Optimizer, p: Any) -> Any:
    """The params after one step, for a gradient of 2 everywhere."""
    return optimizer.step(p, jax.tree.map(lambda x: 0 * x + 2, p), optimizer.init(p))[0]


def _first_update(rate: float) -> Callable[[Tree, Tree], Tree]:
    """Of an optimizer that moves by STEP at first and whose proximal step has this length."""

    def exact(x: Tree, a: Tree) -> Tree:
        moved = {k: v.astype(np.float64) - STEP for k, v in x.items()}
        return {k: y - x[k].astype(np.float64) for k, y in _steps(moved, a, rate).items()}

    return exact


VERBS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "penalty": (lambda p, a, backend: penalty(p, L1, L2, anchor=a, backend=backend), _value),
    "grad of penalty": (
        lambda p, a, backend: jax.value_and_grad(lambda q: penalty(q, L1, L2, anchor=a, backend=backend))(p),
        lambda x, a: (_value(x, a), _gradients(x, a)),
    ),
    "penalty_and_grad": (
        lambda p, a, backend: penalty_and_grad(p, L1, L2, anchor=a, backend=backend),
        lambda x, a: (_value(x, a), _gradients(x, a)),
    ),
    "sums": (
        lambda p, a, backend: tuple(sums(p, anchor=a, backend=backend)[:2]),
        lambda x, a: tuple(np.array([oracle.sums(x[k], a[k]) for k in x]).T),
    ),
    "stats": (
        lambda p, a, backend: tuple(stats(p, anchor=a, backend=backend)[:5]),
        lambda x, a: tuple(np.array([oracle.stats(x[k], a[k]) for k in x]).T),
    ),
    "prox": (
        lambda p, a, backend: prox(p, L1, L2, step=STEP, anchor=a, backend=backend),
        lambda x, a: _steps(x, a, STEP),
    ),
    "global_norm": (
        lambda p, a, backend: (global_norm(p, backend=backend), global_norm(p, np.inf, backend=backend)),
        lambda x, a: (_norm(x), max(oracle.stats(v)[2] for v in x.values())),
    ),
    "optim.adam": (  # as optax.proximal_adamw below
        lambda p, a, backend: _moved(adam(STEP, 0.5, 0.5, l1=L1, l2=L2, anchor=a, backend=backend), p),
        lambda x, a: _steps({k: v.astype(np.float64) - STEP for k, v in x.items()}, a, STEP / 2),
    ),
    "optax.clip_by_global_norm": (
        lambda p, a, backend: clip_by_global_norm(1.0).update(p, optax.EmptyState())[0],
        lambda x, a: {k: v.astype(np.float64) / _norm(x) for k, v in x.items()},
    ),
    "optax.add_penalty_grads": (_update(lambda a: add_penalty_grads(L1, L2, anchor=a)), _gradients),
    "optax.proximal": (
        _update(lambda a: proximal(L1, L2, learning_rate=STEP, anchor=a)),
        lambda x, a: {k: y - x[k].astype(np.float64) for k, y in _steps(x, a, STEP).items()},
    ),
    "optax.proximal_sgd": (
        _update(lambda a: proximal_sgd(STEP, l1=L1, l2=L2, anchor=a), gradient=1),
        _first_update(STEP),
    ),
    "optax.proximal_adamw": (  # v̂ = 4, m̂/√v̂ = 1, exactly: 1 - 0.5 is
        _update(lambda a: proximal_adamw(STEP, 0.5, 0.5, weight_decay=0.0, l1=L1, l2=L2, anchor=a), gradient=2),
        _first_update(STEP / 2),
    ),
    "optax.proximal_adagrad": (  # s = 4
        _update(lambda a: proximal_adagrad(STEP, 0.0, l1=L1, l2=L2, anchor=a), gradient=2),
        _first_update(STEP / 2),
    ),
    "L1L2": (lambda p, a, backend: fp.L1L2(L1, L2)(p), lambda x, a: _value(x, None)),
}


def close(found: Any, expected: Any) -> None:
    """To a few units of float32, or of bfloat16."""

    def one(f: Any, e: Any) -> None:
        f = np.asarray(f)
        bound = 2.0**-7 if f.dtype == DTYPES["bfloat16"] else 2e-6
        np.testing.assert_allclose(f.astype(np.float64), e, rtol=bound, atol=bound)

    jax.tree.map(one, found, expected)
