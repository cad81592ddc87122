"""Where training with `fused_penalty.jax.optim` ends: at the optimum of loss + penalty, zeros and all."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from fused_penalty.jax.optim import Optimizer, adam, adamw, sgd
from tests.jax_only.sparse_problems import Array
from tests.jax_only.sparse_training import PROBLEMS, excess, solved, trained

OPTIMIZERS: dict[str, tuple[Any, int]] = {
    "sgd": (functools.partial(sgd, 0.1), 8000),
    "momentum": (functools.partial(sgd, 0.02, 0.9), 8000),
    "nesterov": (functools.partial(sgd, 0.02, 0.9, True), 8000),
    "adam": (functools.partial(adam, 0.01), 4000),
    "adamw": (functools.partial(adamw, 0.01, weight_decay=0.0), 4000),
    "amsgrad": (functools.partial(adam, 0.01, amsgrad=True), 8000),
}


def train(name: str, optimizer: Optimizer, steps: int) -> Array:
    return trained(name, optimizer.init, lambda w, g, state: optimizer.step(w, g, state)[:2], steps)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_ends_at_the_optimum(name: str, problem: str) -> None:
    with jax.enable_x64(True):
        make, steps = OPTIMIZERS[name]
        known, best = solved(problem)
        w = train(problem, make(l1=known.l1, l2=known.l2), steps)
    np.testing.assert_array_equal(w == 0, best == 0)
    assert abs(excess(problem, w)) < 1e-8
    np.testing.assert_allclose(w, best, atol=1e-4)
