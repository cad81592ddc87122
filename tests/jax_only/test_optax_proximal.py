"""The optax transformation `proximal`: its step, and what training with it ends in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp

from fused_penalty.optax import add_penalty_grads, proximal
from tests.jax_only.optax_steps import step, tree


@pytest.mark.parametrize("case", ["plain", "anchor"])
def test_proximal_step(case: str) -> None:
    params, grads, anchor = tree(), tree(seed=1), tree(seed=2) if case == "anchor" else None
    l1, l2, lr = 2.0, 0.5, 0.1
    optimizer = optax.chain(optax.sgd(lr), proximal(l1, l2, learning_rate=lr, anchor=anchor))
    after, _ = step(optimizer, params, grads)
    zeros = 0
    for k, x in params.items():
        base = 0.0 if anchor is None else np.asarray(anchor[k], np.float64)
        y = np.asarray(x, np.float64) - lr * np.asarray(grads[k], np.float64) - base
        exact = base + np.sign(y) * np.maximum(np.abs(y) - lr * l1, 0) / (1 + 2 * lr * l2)
        np.testing.assert_allclose(after[k], exact, rtol=1e-5, atol=1e-6)
        zeros += np.count_nonzero(after[k] == 0)
    assert anchor is not None or zeros > 0


def test_proximal_follows_schedules() -> None:
    params, zeros = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.zeros(2)}
    optimizer = proximal(optax.linear_schedule(0.0, 1.0, 2), learning_rate=optax.linear_schedule(0.5, 0.0, 2))
    state = optimizer.init(params)
    for threshold in (0.0, 0.5 * 0.25, 0.0):  # l1 · lr
        updates, state = optimizer.update(zeros, state, params)
        np.testing.assert_allclose(updates["w"], [-threshold, threshold], atol=1e-7)


def test_proximal_under_inject_hyperparams() -> None:
    params = {"w": jnp.array([1.0, -0.25])}
    optimizer = optax.inject_hyperparams(proximal)(l1=1.0, learning_rate=optax.linear_schedule(0.5, 0.0, 2))
    state = optimizer.init(params)
    for expected in ([0.5, 0.0], [0.75, 0.0]):
        updates, state = jax.jit(optimizer.update)({"w": jnp.zeros(2)}, state, params)
        np.testing.assert_array_equal(optax.apply_updates(params, updates)["w"], expected)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_negative_or_nan_array_gives_nan(value: float) -> None:
    params = {"w": jnp.array([2.0, 0.0, -0.1])}
    bad = jnp.float32(value)
    for optimizer in (proximal(0.1, 0.5, learning_rate=bad), proximal(bad, learning_rate=0.1)):
        after, _ = step(optimizer, params, jax.tree.map(jnp.zeros_like, params))
        assert np.isnan(after["w"]).all()


def _train(penalised: Callable[[], Any]) -> np.ndarray:
    """The weights of a regression in which 6 of 20 features matter."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20)).astype(np.float32)
    truth = np.where(np.arange(20) < 6, 1.0, 0.0)
    y = x @ truth + 0.1 * rng.standard_normal(200)
    optimizer = penalised()

    @jax.jit
    def run(w: Any, state: Any) -> Any:
        def loss(w: Any) -> Any:
            return jnp.mean((x @ w["w"] - y) ** 2)

        def one(carry: Any, _: Any) -> Any:
            w, state = carry
            updates, state = optimizer.update(jax.grad(loss)(w), state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(one, (w, state), None, length=200)[0][0]

    w = {"w": jnp.asarray(rng.standard_normal(20), jnp.float32)}
    return np.asarray(run(w, optimizer.init(w))["w"])


def test_training_ends_in_exact_zeros() -> None:
    lr, l1 = 0.1, 0.2
    proximally = _train(lambda: optax.chain(optax.sgd(lr), proximal(l1, learning_rate=lr)))
    assert np.count_nonzero(proximally[6:] == 0) == 14
    assert np.count_nonzero(proximally[:6]) == 6
    by_subgradient = _train(lambda: optax.chain(add_penalty_grads(l1), optax.sgd(lr)))
    assert np.count_nonzero(by_subgradient == 0) == 0  # it swings around zero
    np.testing.assert_allclose(by_subgradient, proximally, atol=2 * lr * l1)
