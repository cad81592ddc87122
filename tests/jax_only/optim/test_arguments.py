"""What `fused_penalty.jax.optim` makes of its arguments: strengths, masks, schedules, clipping, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp

from fused_penalty import by_path
from fused_penalty.jax import global_norm, penalty
from fused_penalty.jax.optim import adam, adamw, sgd

PARAMS = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([0.5, -0.25])}
GRADS = {"w": jnp.array([0.5, 0.5, -1.0]), "b": jnp.array([1.0, 1.0])}


def one(optimizer: Any, params: Any = PARAMS, grads: Any = GRADS, steps: int = 1) -> tuple[Any, Any, Any]:
    state, summary = optimizer.init(params), None
    for _ in range(steps):
        params, state, summary = jax.jit(optimizer.step)(params, grads, state)
    return params, state, summary


def equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "l1",
    [{"w": 0.3, "b": 0.0}, by_path({"w": 0.3, "*": 0.0}), {"w": jnp.float32(0.3), "b": 0.0}],
    ids=["tree", "rule", "device scalar"],
)
def test_strengths_of_their_own(l1: Any) -> None:
    found, _, summary = one(sgd(0.1, l1=l1))
    want, _, _ = one(sgd(0.1, l1=0.3))
    equal(found["w"], want["w"])
    equal(found["b"], one(sgd(0.1))[0]["b"])
    np.testing.assert_allclose(summary.penalty, penalty(PARAMS, l1), rtol=1e-6)


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, lambda p: {"w": True, "b": False}], ids=["tree", "function"])
def test_a_masked_leaf_moves_without_a_penalty(mask: Any) -> None:
    found, _, summary = one(adam(0.1, l1=0.3, l2=0.1, mask=mask, anchor=jax.tree.map(jnp.zeros_like, PARAMS)))
    equal(found["b"], one(adam(0.1))[0]["b"])
    equal(found["w"], one(adam(0.1, l1=0.3, l2=0.1))[0]["w"])
    np.testing.assert_allclose(summary.penalty, penalty(PARAMS, 0.3, 0.1, mask=mask), rtol=1e-6)


def test_weight_decay_of_each_leaf() -> None:
    """It has strengths of its own, which the mask does not touch."""
    rule = by_path({"b": 0.0, "*": 0.5})
    found, _, _ = one(adamw(0.1, weight_decay=rule, l1=0.3, mask=False))
    equal(found["w"], one(adamw(0.1, weight_decay=0.5))[0]["w"])
    equal(found["b"], one(adamw(0.1, weight_decay=0.0))[0]["b"])


def test_schedules() -> None:
    """They are called with the number of steps taken."""
    seen = one(sgd(lambda t: 0.1 / (1 + t), l1=lambda t: 0.3 * t), steps=2)[0]
    first, _, _ = one(sgd(0.1))
    equal(seen, one(sgd(0.05, l1=0.3), first)[0])


def test_traced_arguments_compile_once() -> None:
    @jax.jit
    def step(params: Any, grads: Any, state: Any, rate: Any, l1: Any) -> Any:
        return adamw(rate, weight_decay=0.1, l1=l1).step(params, grads, state)

    state = adamw(0.1).init(PARAMS)
    for rate, l1 in ((0.1, 0.3), (0.2, 0.0)):
        want, _, _ = one(adamw(rate, weight_decay=0.1, l1=l1))
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), step(PARAMS, GRADS, state, rate, l1)[0], want
        )
    assert step._cache_size() == 1


@pytest.mark.parametrize("value", [-0.1, np.nan])
@pytest.mark.parametrize("name", ["learning_rate", "l1", "l2"])
def test_a_bad_device_scalar_gives_nan(name: str, value: float) -> None:
    """It is not read on the host, and no number that looks right comes out."""

    def step(v: Any) -> Any:
        given = {"learning_rate": 0.1, "l1": 0.1, "l2": 0.1, name: v}
        optimizer = sgd(**given)
        return optimizer.step(PARAMS, GRADS, optimizer.init(PARAMS))[0]

    found = jax.jit(step)(jnp.float32(value))
    assert all(bool(jnp.isnan(x).all()) for x in jax.tree.leaves(found))


def test_clipping_within_the_step() -> None:
    norm = float(global_norm(GRADS))
    found, _, summary = one(sgd(0.1, l1=0.3, max_grad_norm=0.5))
    clipped = jax.tree.map(lambda g: g * (0.5 / (norm + 1e-6)), GRADS)
    want = one(sgd(0.1, l1=0.3), grads=clipped)[0]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, want)
    np.testing.assert_allclose(summary.grad_norm, norm, rtol=1e-6)
    equal(one(sgd(0.1, max_grad_norm=10.0))[0], one(sgd(0.1))[0])


def test_leaves_without_a_gradient_stay() -> None:
    found, state, summary = one(adam(0.1, l1=0.3), grads={**GRADS, "b": None})
    equal(found["b"], PARAMS["b"])
    assert not np.any(state.mu["b"])
    np.testing.assert_allclose(summary.penalty, penalty({"w": PARAMS["w"]}, 0.3), rtol=1e-6)
    none = jax.tree.map(lambda x: None, PARAMS)
    found, state, summary = one(adam(0.1, l1=0.3), grads=none)
    equal(found, PARAMS)
    assert float(summary.penalty) == 0.0
    assert int(state.count) == 1


def test_models_with_other_leaves() -> None:
    """Functions and integers, whose gradients are None or float0, as equinox and `jax.grad(allow_int=True)` give."""
    params = {"w": jnp.ones(3), "f": jnp.tanh, "n": jnp.arange(2)}
    grads = {"w": jnp.ones(3), "f": None, "n": np.zeros(2, jax.dtypes.float0)}
    optimizer = adam(0.1, l1=0.1)
    new, state, _ = optimizer.step(params, grads, optimizer.init(params))
    assert new["f"] is jnp.tanh
    assert state.mu["f"] is None
    equal(new["n"], params["n"])


def test_equinox() -> None:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    optimizer = adam(0.1, l1=1e-3)

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        grads = eqx.filter_grad(lambda m: jnp.sum(m(jnp.ones(2)) ** 2))(model)
        return optimizer.step(model, grads, state)

    new, state, _ = step(model, optimizer.init(model))
    assert isinstance(new, eqx.nn.MLP)
    assert new.layers[0].weight.shape == (4, 2)
    assert bool(jnp.any(new.layers[0].weight != model.layers[0].weight))
    step(new, state)


def test_the_state_keeps_a_copy_of_the_anchor() -> None:
    anchor = jax.tree.map(jnp.copy, PARAMS)
    optimizer = sgd(0.1, l2=0.5, anchor=anchor)
    step = jax.jit(optimizer.step, donate_argnums=(0, 2))
    new, state, summary = step(jax.tree.map(jnp.copy, PARAMS), GRADS, optimizer.init(PARAMS))
    assert float(summary.penalty) == 0.0
    before = sum(float(jnp.sum((new[k] - anchor[k]) ** 2)) for k in anchor)
    _, _, summary = step(new, GRADS, state)
    np.testing.assert_allclose(summary.penalty, 0.5 * before, rtol=1e-6)
    equal(anchor, PARAMS)


BAD = {
    "penalty": (lambda: sgd(0.1, penalty="soft"), ValueError, "penalty: 'soft' is unknown"),
    "b1": (lambda: adam(0.1, b1=1.0), ValueError, "b1: 1.0"),
    "b2": (lambda: adam(0.1, b2=-0.1), ValueError, "b2: -0.1"),
    "momentum": (lambda: sgd(0.1, 1.5), ValueError, "momentum: 1.5"),
    "max_grad_norm": (lambda: sgd(0.1, max_grad_norm=-1.0), ValueError, "max_grad_norm: -1.0"),
    "backend": (lambda: sgd(0.1, backend="tpu"), ValueError, "backend: 'tpu' is unknown"),
    "state_dtype": (lambda: one(adam(0.1, state_dtype=jnp.float16)), ValueError, "state_dtype: float16"),
    "learning_rate": (lambda: one(sgd(-0.1)), ValueError, "learning_rate: the strength -0.1"),
    "l1": (lambda: one(sgd(0.1, l1=-0.1)), ValueError, "l1: the strength -0.1"),
    "structure": (lambda: one(sgd(0.1), grads={"w": GRADS["w"]}), ValueError, "grads: its structure"),
    "shape": (lambda: one(sgd(0.1), grads={**GRADS, "b": jnp.ones(3)}), ValueError, r"grads at 'b': shape \(3,\)"),
    "float8": (
        lambda: one(sgd(0.1), {"w": jnp.ones(2, jnp.float8_e5m2)}, {"w": jnp.ones(2, jnp.float8_e5m2)}),
        TypeError,
        "params at 'w'",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused(what: str) -> None:
    call, kind, message = BAD[what]
    with pytest.raises(kind, match=message):
        call()


def test_the_state_of_another_model_is_refused() -> None:
    optimizer = adam(0.1)
    with pytest.raises(ValueError, match="state: its structure"):
        optimizer.step(PARAMS, GRADS, optimizer.init({"w": PARAMS["w"]}))
