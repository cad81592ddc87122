"""flax (nnx and linen), equinox, haiku and optax: a short training run each, equal to its naive twin."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax
import jax.numpy as jnp
import numpy as np

from fused_penalty.jax import penalty
from fused_penalty.optax import add_penalty_grads

from .twins import L1, L2, RATE, STEPS, naive_jax

X = jnp.asarray(np.random.default_rng(0).standard_normal((16, 3)), jnp.float32)
Y = X @ jnp.array([[1.0], [0.0], [-1.0]])


def same(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)


def descend(loss: Any, params: Any, optimizer: Any) -> Any:
    """A jitted, donated training loop over a pytree of arrays."""

    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
    state, jitted = optimizer.init(params), jax.jit(step, donate_argnums=(0, 1))
    for _ in range(STEPS):
        params, state = jitted(params, state)
    return params


def three_ways(data_loss: Any, params: Any) -> None:
    """In the loss, and in the optimizer: both as the naive sum in the loss."""
    sgd = optax.sgd(RATE, momentum=0.9)
    expected = descend(lambda p: data_loss(p) + naive_jax(p), params, sgd)
    same(descend(lambda p: data_loss(p) + penalty(p, L1, L2), params, sgd), expected)
    same(descend(data_loss, params, optax.chain(add_penalty_grads(L1, L2), sgd)), expected)


def test_linen() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(1)(nn.relu(nn.Dense(8)(x)))

    model = Model()
    params = model.init(jax.random.key(0), X)["params"]
    three_ways(lambda p: jnp.mean((model.apply({"params": p}, X) - Y) ** 2), params)


def test_linen_train_state() -> None:
    pytest.importorskip("flax.linen", reason="flax is not installed")
    import flax.linen as nn
    from flax.training.train_state import TrainState

    model = nn.Dense(1)
    params = model.init(jax.random.key(0), X)["params"]

    def run(loss: Any, tx: Any) -> Any:
        state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
        for _ in range(STEPS):
            state = state.apply_gradients(grads=jax.grad(loss)(state.params))
        return state.params

    def data_loss(p: Any) -> Any:
        return jnp.mean((model.apply({"params": p}, X) - Y) ** 2)

    expected = run(lambda p: data_loss(p) + naive_jax(p), optax.adam(RATE))
    same(run(data_loss, optax.chain(add_penalty_grads(L1, L2), optax.adam(RATE))), expected)


def test_nnx_module_with_batch_norm() -> None:
    """Running means and variances, and the counters of dropout, are not parameters."""
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    def run(of: Any) -> Any:
        rngs = nnx.Rngs(0)
        layers = (nnx.Linear(3, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.0, rngs=rngs))
        model = nnx.Sequential(*layers, nnx.Linear(8, 1, rngs=rngs))
        optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)

        @nnx.jit
        def step(model: Any, optimizer: Any) -> Any:
            def loss(model: Any) -> Any:
                return jnp.mean((model(X) - Y) ** 2) + of(model)

            value, grads = nnx.value_and_grad(loss)(model)
            optimizer.update(model, grads)
            return value

        values = [float(step(model, optimizer)) for _ in range(STEPS)]
        return values, [nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat)]

    expected = run(lambda model: naive_jax(nnx.state(model, nnx.Param)))
    same(run(lambda model: penalty(model, L1, L2)), expected)


def test_equinox() -> None:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")

    def run(of: Any, optimizer: Any) -> Any:
        model = eqx.nn.MLP(3, 1, 8, 1, key=jax.random.key(0))
        state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

        @eqx.filter_jit
        def step(model: Any, state: Any) -> Any:
            def loss(model: Any) -> Any:
                return jnp.mean((jax.vmap(model)(X) - Y) ** 2) + of(eqx.filter(model, eqx.is_inexact_array))

            grads = eqx.filter_grad(loss)(model)
            updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
            return eqx.apply_updates(model, updates), state

        for _ in range(STEPS):
            model, state = step(model, state)
        return eqx.filter(model, eqx.is_inexact_array)

    expected = run(naive_jax, optax.sgd(RATE))
    same(run(lambda p: penalty(p, L1, L2), optax.sgd(RATE)), expected)
    same(run(lambda p: 0.0, optax.chain(add_penalty_grads(L1, L2), optax.sgd(RATE))), expected)


def test_haiku() -> None:
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed (make clients)")
    model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 1])(x)))
    params = model.init(jax.random.key(0), X)
    three_ways(lambda p: jnp.mean((model.apply(p, X) - Y) ** 2), params)
