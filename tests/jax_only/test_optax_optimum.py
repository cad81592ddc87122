"""Where training ends: optimizers with the penalty in their step reach the optimum of loss + penalty, zeros and all.

The optimum comes from coordinate descent in NumPy (sparse_problems.py).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp

from fused_penalty.optax import add_penalty_grads, proximal, proximal_adagrad, proximal_adamw, proximal_sgd
from tests.jax_only.sparse_problems import WEIGHTS, Array
from tests.jax_only.sparse_training import PROBLEMS, excess, solved, trained

RATE = 0.01
ADAM = functools.partial(proximal_adamw, RATE, weight_decay=0.0)
OPTIMIZERS: dict[str, tuple[Any, int]] = {
    "sgd": (functools.partial(proximal_sgd, 0.1), 8000),
    "momentum": (functools.partial(proximal_sgd, 0.02, 0.9), 8000),
    "nesterov": (functools.partial(proximal_sgd, 0.02, 0.9, True), 8000),
    "adam": (ADAM, 4000),
    "adam, nesterov": (functools.partial(ADAM, nesterov=True), 4000),
    "adam, eps_root": (functools.partial(ADAM, eps_root=1e-6), 4000),
    "amsgrad": (functools.partial(ADAM, amsgrad=True), 8000),
    "adagrad": (functools.partial(proximal_adagrad, 0.5), 4000),
}


def train(name: str, optimizer: Any, steps: int) -> Array:
    def step(w: Any, g: Any, state: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(g, state, w)
        return optax.apply_updates(w, updates), state

    return trained(name, optimizer.init, step, steps)


@pytest.fixture(autouse=True)
def wide() -> Any:
    with jax.enable_x64(True):
        yield


def test_the_lasso_has_the_zeros_that_it_was_made_with() -> None:
    _, best = solved("lasso")
    assert np.count_nonzero(best == 0) == 54
    assert np.all(best[:6] != 0)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_ends_at_the_optimum(name: str, problem: str) -> None:
    make, steps = OPTIMIZERS[name]
    (known, best) = solved(problem)
    w = train(problem, make(l1=known.l1, l2=known.l2), steps)
    np.testing.assert_array_equal(w == 0, best == 0)
    assert abs(excess(problem, w)) < 1e-8
    np.testing.assert_allclose(w, best, atol=1e-4)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("kind", ["euclidean", "subgradient", "momentum, step size of one gradient"])
def test_what_does_not_end_there(kind: str, problem: str) -> None:
    """The test of the test, and why there are optimizers with the penalty inside."""
    known, _ = solved(problem)
    strengths = {"l1": known.l1, "l2": known.l2}
    optimizer = {
        "euclidean": lambda: ADAM(**strengths, metric="euclidean"),
        "subgradient": lambda: optax.chain(add_penalty_grads(**strengths), optax.adam(RATE)),
        "momentum, step size of one gradient": lambda: optax.chain(
            optax.sgd(0.02, 0.9), proximal(**strengths, learning_rate=0.02)
        ),
    }[kind]()
    w = train(problem, optimizer, 4000)
    assert excess(problem, w) > 1e-3
    assert np.count_nonzero(w == 0) < 40


def test_euclidean_is_the_chain() -> None:
    known, _ = solved("lasso")
    strengths = {"l1": known.l1, "l2": known.l2}
    chain = optax.chain(optax.adamw(RATE, weight_decay=0.0), proximal(**strengths, learning_rate=RATE))
    np.testing.assert_array_equal(
        train("lasso", ADAM(**strengths, metric="euclidean"), 100), train("lasso", chain, 100)
    )


def test_towards_an_anchor() -> None:
    """The same lasso, moved by an anchor: weights that do not matter rest on it."""
    problem, best = solved("lasso")
    anchor = np.random.default_rng(2).standard_normal(WEIGHTS)
    moved = functools.partial(ADAM, l1=problem.l1, l2=problem.l2, anchor=jnp.asarray(anchor))
    features, targets = jnp.asarray(problem.features), jnp.asarray(problem.targets + problem.features @ anchor)
    optimizer = moved()

    def one(carry: Any, _: Any) -> Any:
        w, state = carry
        gradient = features.T @ (features @ w - targets) / len(targets)
        updates, state = optimizer.update(gradient, state, w)
        return (optax.apply_updates(w, updates), state), None

    w = jnp.zeros(WEIGHTS)
    found = np.asarray(jax.lax.scan(one, (w, optimizer.init(w)), None, length=6000)[0][0])
    np.testing.assert_allclose(found - anchor, best, atol=1e-10)
    np.testing.assert_allclose(found[best == 0], anchor[best == 0], rtol=0, atol=1e-15)
