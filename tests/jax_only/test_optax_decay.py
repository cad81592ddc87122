"""`weight_decay=` beside `l2=`, with the ½ that its name implies."""

from __future__ import annotations

import functools
from typing import Any

import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp

import fused_penalty as fp
from fused_penalty.optax import add_penalty_grads, proximal
from tests.jax_only.optax_steps import equal, step, tree

KINDS = {"add": add_penalty_grads, "proximal": functools.partial(proximal, learning_rate=0.5)}
FALLING = optax.linear_schedule(0.5, 0.0, 4)


@pytest.mark.parametrize("wd", [0.25, FALLING], ids=["float", "schedule"])
def test_add_penalty_grads_is_add_decayed_weights(wd: Any) -> None:
    params, grads = tree(), tree(seed=1)
    found, expected = add_penalty_grads(weight_decay=wd), optax.add_decayed_weights(wd)
    a, b = found.init(params), expected.init(params)
    for _ in range(3):
        (x, a), (y, b) = step(found, params, grads, a), step(expected, params, grads, b)
        equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wd", "l2"),
    [
        (0.25, 0.125),
        (jnp.float32(0.25), jnp.float32(0.125)),
        (FALLING, lambda count: FALLING(count) / 2),
        ({"kernel": 0.25, "bias": 0.0, "scale": 1.0}, {"kernel": 0.125, "bias": 0.0, "scale": 0.5}),
        (fp.by_path({"kernel": FALLING, "*": 0.5}), fp.by_path({"kernel": lambda c: FALLING(c) / 2, "*": 0.25})),
        (fp.by_leaf(lambda path, leaf: 0.5 * leaf.ndim), fp.by_leaf(lambda path, leaf: 0.25 * leaf.ndim)),
    ],
    ids=["float", "array", "schedule", "tree", "by_path", "by_leaf"],
)
def test_it_is_half_of_l2(kind: str, wd: Any, l2: Any) -> None:
    params, grads = tree(), tree(seed=1)
    found, expected = KINDS[kind](l1=0.1, weight_decay=wd), KINDS[kind](l1=0.1, l2=l2)
    equal(step(found, params, grads)[0], step(expected, params, grads)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_under_inject_hyperparams(kind: str) -> None:
    params, grads = tree(), tree(seed=1)
    rest = {"learning_rate": 0.5} if kind == "proximal" else {}
    make = optax.inject_hyperparams({"add": add_penalty_grads, "proximal": proximal}[kind])
    equal(step(make(weight_decay=0.25, **rest), params, grads)[0], step(make(l2=0.125, **rest), params, grads)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_errors(kind: str) -> None:
    with pytest.raises(
        ValueError, match=r"^weight_decay: it is given beside l2\. Give one of them: weight_decay=wd is l2"
    ):
        KINDS[kind](l2=0.1, weight_decay=0.2)
    for value, error in ((-1.0, ValueError), ("much", TypeError), ({"kernel": 0.1}, ValueError)):
        with pytest.raises(error, match=r"^weight_decay"):
            step(KINDS[kind](weight_decay=value), tree(), tree())
