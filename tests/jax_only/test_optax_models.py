"""The proximal optimizers with flax, equinox, optax's wrappers and meshes: the same numbers as on a plain dict."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding

from fused_penalty.optax import proximal_adagrad, proximal_adamw, proximal_sgd
from tests.jax_only.optax_steps import step, tree

MAKERS = {
    "momentum": functools.partial(proximal_sgd, 0.1, 0.9, l1=0.1, l2=0.1),
    "adamw": functools.partial(proximal_adamw, 0.1, l1=0.1, l2=0.1),
    "adagrad": functools.partial(proximal_adagrad, 0.1, l1=0.1, l2=0.1),
}
close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]


def test_an_nnx_module(make: Any) -> None:
    """Its Params are penalised, the statistics of a BatchNorm are not parameters."""
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
    model = nnx.Sequential(nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.BatchNorm(8, rngs=nnx.Rngs(0)))
    optimizer = nnx.Optimizer(model, make(), wrt=nnx.Param)
    plain = {"kernel": model.layers[0].kernel[...], "bias": model.layers[0].bias[...]}
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, grads)
    expected, _ = step(make(), plain, jax.tree.map(jnp.ones_like, plain))
    close(model.layers[0].kernel[...], expected["kernel"])


def test_boxes_of_linen_and_an_equinox_module(make: Any) -> None:
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    dense = linen.Dense(3, kernel_init=linen.with_partitioning(linen.initializers.ones, ("a", "b")))
    boxed = dense.init(jax.random.key(0), jnp.ones((2, 4)))["params"]
    layer = eqx.filter(eqx.nn.Linear(4, 3, key=jax.random.key(0)), eqx.is_inexact_array)
    for params in (boxed, layer):
        grads = jax.tree.map(jnp.ones_like, params)
        plain = dict(enumerate(jax.tree.leaves(params)))
        found, _ = step(make(), params, grads)
        expected, _ = step(make(), plain, jax.tree.map(jnp.ones_like, plain))
        jax.tree.map(close, jax.tree.leaves(found), jax.tree.leaves(expected))
        assert jax.tree.structure(found) == jax.tree.structure(params)


def test_multi_steps_and_apply_if_finite(make: Any) -> None:
    params, grads = tree(), tree(seed=1)
    once, _ = step(make(), params, grads)
    for wrapper in (optax.MultiSteps(make(), 2), optax.apply_if_finite(make(), 3)):
        found, state = params, wrapper.init(params)
        bad = grads if isinstance(wrapper, optax.MultiSteps) else jax.tree.map(lambda g: g * jnp.nan, grads)
        found, state = step(wrapper, found, bad, state)
        jax.tree.map(np.testing.assert_array_equal, found, params)  # nothing happens yet, or ever
        found, state = step(wrapper, found, grads, state)
        jax.tree.map(close, found, once)


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_sharded_leaves_need_no_communication(make: Any, axes: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axes,))
    plain = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((16, 4)), jnp.float32)}
    expected, _ = step(make(), plain, plain)
    with jax.set_mesh(mesh):
        params = jax.device_put(plain, NamedSharding(mesh, jax.P("x", None)))
        optimizer = make()
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        assert "all-" not in update.lower(params, state, params).compile().as_text()
        updates, _ = update(params, state, params)
        assert updates["w"].sharding.is_equivalent_to(params["w"].sharding, 2)
        close(optax.apply_updates(params, updates)["w"], expected["w"])
