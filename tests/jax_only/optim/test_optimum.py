"""Where training with `fused_penalty.jax.optim` ends: at the optimum of loss + penalty, zeros and all."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp

from fused_penalty.jax.optim import Optimizer, adam, adamw, sgd
from tests.jax_only.sparse_problems import WEIGHTS, Array, Problem, lasso, logistic_regression

PROBLEMS = {"lasso": lasso, "logistic": logistic_regression}
OPTIMIZERS: dict[str, tuple[Any, int]] = {
    "sgd": (functools.partial(sgd, 0.1), 8000),
    "momentum": (functools.partial(sgd, 0.02, 0.9), 8000),
    "nesterov": (functools.partial(sgd, 0.02, 0.9, True), 8000),
    "adam": (functools.partial(adam, 0.01), 4000),
    "adamw": (functools.partial(adamw, 0.01, weight_decay=0.0), 4000),
    "amsgrad": (functools.partial(adam, 0.01, amsgrad=True), 8000),
}


@functools.cache
def solved(name: str) -> tuple[Problem, Array]:
    problem = PROBLEMS[name]()
    return problem, problem.optimum()


def trained(name: str, optimizer: Optimizer, steps: int) -> Array:
    problem, _ = solved(name)
    features, targets = jnp.asarray(problem.features), jnp.asarray(problem.targets)

    def loss(w: Any) -> Any:
        z = features @ w
        return jnp.mean((z - targets) ** 2) / 2 if name == "lasso" else jnp.mean(jnp.logaddexp(0, -targets * z))

    @jax.jit
    def run(w: Any, state: Any) -> Any:
        def one(carry: Any, _: Any) -> Any:
            w, state, _ = optimizer.step(carry[0], jax.grad(loss)(carry[0]), carry[1])
            return (w, state), None

        return jax.lax.scan(one, (w, state), None, length=steps)[0][0]

    w = jnp.asarray(0.1 * np.random.default_rng(1).standard_normal(WEIGHTS))
    return np.asarray(run(w, optimizer.init(w)))


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_ends_at_the_optimum(name: str, problem: str) -> None:
    with jax.enable_x64(True):
        make, steps = OPTIMIZERS[name]
        known, best = solved(problem)
        w = trained(problem, make(l1=known.l1, l2=known.l2), steps)
    np.testing.assert_array_equal(w == 0, best == 0)
    assert abs(known.objective(w) - known.objective(best)) < 1e-8
    np.testing.assert_allclose(w, best, atol=1e-4)
