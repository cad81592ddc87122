"""Training on the problems of sparse_problems.py in JAX, and how far from the optimum it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.jax_only.sparse_problems import WEIGHTS, Array, Problem, lasso, logistic_regression

PROBLEMS = {"lasso": lasso, "logistic": logistic_regression}


@functools.cache
def solved(name: str) -> tuple[Problem, Array]:
    problem = PROBLEMS[name]()
    return problem, problem.optimum()


def excess(name: str, w: Array) -> float:
    problem, best = solved(name)
    return problem.objective(w) - problem.objective(best)


def trained(
    name: str, init: Callable[[Any], Any], step: Callable[[Any, Any, Any], tuple[Any, Any]], steps: int
) -> Array:
    """The weights after so many steps; `step` is called with weights, gradient and state."""
    problem, _ = solved(name)
    features, targets = jnp.asarray(problem.features), jnp.asarray(problem.targets)

    def loss(w: Any) -> Any:
        z = features @ w
        return jnp.mean((z - targets) ** 2) / 2 if name == "lasso" else jnp.mean(jnp.logaddexp(0, -targets * z))

    @jax.jit
    def run(w: Any, state: Any) -> Any:
        def one(carry: Any, _: Any) -> Any:
            w, state = carry
            return step(w, jax.grad(loss)(w), state), None

        return jax.lax.scan(one, (w, state), None, length=steps)[0][0]

    w = jnp.asarray(0.1 * np.random.default_rng(1).standard_normal(WEIGHTS))
    return np.asarray(run(w, init(w)))
