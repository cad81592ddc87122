"""A plain MLP in jnp for the examples that compare penalties: everything else stays the same."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from digits import Split
from fused_penalty.jax import penalty

Params = list[dict[str, jax.Array]]
SIZES = (64, 64, 32, 10)


def init(key: jax.Array) -> Params:
    """A list of layers, each {"w": (before, after), "b": (after,)}."""
    keys = jax.random.split(key, len(SIZES) - 1)
    normal = jax.nn.initializers.he_normal()
    shapes = zip(keys, SIZES[:-1], SIZES[1:], strict=True)
    return [{"w": normal(k, (n, m)), "b": jnp.zeros(m)} for k, n, m in shapes]


def weights_only(strength: Any) -> Any:
    """The strength for weights, and none for biases."""
    return [{"w": strength, "b": 0.0}] * (len(SIZES) - 1)


def logits(params: Params, x: jax.Array) -> jax.Array:
    x = x.reshape(len(x), -1)
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def accuracy(params: Params, split: Split) -> jax.Array:
    return (logits(params, split.x).argmax(-1) == split.y).mean()


def train(split: Split, optimizer: optax.GradientTransformation, steps: int, l1: Any = 0.0, l2: Any = 0.0) -> Params:
    """Full-batch training from one and the same start."""

    def loss(params: Params) -> jax.Array:
        data = optax.softmax_cross_entropy_with_integer_labels(logits(params, split.x), split.y).mean()
        return data + penalty(params, l1, l2)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = init(jax.random.key(0))
    return jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), length=steps)[0][0])(start)
