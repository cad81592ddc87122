"""Rules over the modules and names of flax, equinox and optax."""

from __future__ import annotations

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import fused_penalty as fp
from fused_penalty.jax import penalty
from fused_penalty.jax.optim import adamw
from fused_penalty.optax import add_penalty_grads, proximal_adamw


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(2, 2, rngs=rngs, bias_init=jax.nn.initializers.ones)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.parts = nnx.List([nnx.Embed(3, 2, rngs=rngs), nnx.SpectralNorm(nnx.Linear(2, 2, rngs=rngs), rngs=rngs)])


def size(tree: Any) -> float:
    return float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(tree)))


def test_nnx() -> None:
    """The Module and its State; paths have no `.value`, and BatchStats are no parameters."""
    model = Block(nnx.Rngs(0))
    kernels = [model.dense.kernel, model.parts[0].embedding, model.parts[1].layer_instance.kernel]
    for params in (model, nnx.state(model, nnx.Param)):
        assert float(penalty(params, fp.by_path({re.compile(r"\.kernel$"): 1.0}, default=0.0))) == pytest.approx(
            size([kernels[0], kernels[2]]), rel=1e-6
        )
        found = penalty(params, 1.0, mask=fp.no_decay_on_norms_and_biases())
        assert float(found) == pytest.approx(size(kernels), rel=1e-6)
    found = penalty(model, fp.by_type({nnx.Embed: 1.0, nnx.Linear: 2.0, nnx.BatchNorm: 0.0}))
    expected = size(kernels[1]) + 2 * size(
        [kernels[0], kernels[2], model.dense.bias, model.parts[1].layer_instance.bias]
    )
    assert float(found) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"^l1 at '.*': this leaf is in State > State, of which by_type knows none"):
        penalty(nnx.state(model, nnx.Param), fp.by_type({nnx.Embed: 1.0}))


def test_linen() -> None:
    module = linen.Sequential([linen.Dense(2), linen.LayerNorm(), linen.Dense(2)])
    params = module.init(jax.random.key(0), jnp.ones((1, 2)))["params"]
    found = penalty(params, fp.no_decay_on_norms_and_biases(1.0))
    assert float(found) == pytest.approx(size([p["kernel"] for p in params.values() if "kernel" in p]), rel=1e-6)


def test_equinox() -> None:
    keys = jax.random.split(jax.random.key(0))
    model = {
        "a": eqx.nn.Linear(2, 2, key=keys[0]),
        "b": [eqx.nn.LayerNorm((2, 2)), eqx.nn.MLP(2, 2, 3, 1, key=keys[1])],
    }
    params = eqx.filter(model, eqx.is_array)
    mlp = [layer.weight for layer in params["b"][1].layers]
    only = fp.by_type({eqx.nn.Linear: 1.0, eqx.Module: 0.0})
    assert float(penalty(params, only)) == pytest.approx(size([params["a"], params["b"][1]]), rel=1e-6)
    found = jax.jit(lambda p: penalty(p, 1.0, mask=fp.no_decay_on_norms_and_biases()))(params)
    assert float(found) == pytest.approx(size([params["a"].weight, *mlp]), rel=1e-6)


def test_in_optax() -> None:
    """As a mask, with a schedule inside, as optax's own mask in `weight_decay_mask`, and as our optimizer's decay."""
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones((1, 2))}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    rule = fp.no_decay_on_norms_and_biases()
    expected = jax.tree.map(jnp.zeros_like, params) | {"dense": {"kernel": jnp.full((2, 2), 0.5), "bias": jnp.zeros(2)}}

    def first(transformation: Any) -> Any:
        return transformation.update(zeros, transformation.init(params), params)[0]

    for transformation in (
        add_penalty_grads(l1=0.5, mask=rule),
        add_penalty_grads(l1=fp.no_decay_on_norms_and_biases(lambda count: 0.5)),
        add_penalty_grads(weight_decay=0.5, mask=rule),
    ):
        jax.tree.map(np.testing.assert_array_equal, first(transformation), expected)
    ours = adamw(1.0, weight_decay=fp.no_decay_on_norms_and_biases(0.5))
    stepped, _, _ = ours.step(params, zeros, ours.init(params))
    jax.tree.map(lambda x, p, e: np.testing.assert_allclose(x, p - e), stepped, params, expected)
    decayed = first(proximal_adamw(1.0, weight_decay=0.5, weight_decay_mask=rule))
    jax.tree.map(lambda u, e: np.testing.assert_allclose(u, -e), decayed, expected)
