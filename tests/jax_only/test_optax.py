"""The optax transformations against optax's own and against what float64 says: add_penalty_grads, and what holds for
both; test_optax_proximal.py has the step of the other."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp

import fused_penalty as fp
from fused_penalty.optax import PenaltyState, add_penalty_grads, proximal
from tests.jax_only.optax_steps import Tree, equal, step, tree
from tests.support import oracle
from tests.support.check import close_gradient

WIDTH = 256


# add_penalty_grads


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_equals_add_decayed_weights_bit_for_bit(wrap: Callable[..., Any]) -> None:
    params, grads = tree(), tree(seed=1)
    for wd in (0.1, optax.linear_schedule(0.1, 0.0, 10)):
        ours = add_penalty_grads(l2=wd / 2 if isinstance(wd, float) else lambda count, wd=wd: wd(count) / 2)
        theirs = optax.add_decayed_weights(wd)
        a, b = ours.init(params), theirs.init(params)
        for _ in range(3):
            found, a = wrap(ours.update)(grads, a, params)
            expected, b = wrap(theirs.update)(grads, b, params)
            equal(found, expected)


def test_gradient_in_every_dtype(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        params, anchor = tree(dtype), tree(dtype, seed=2)
        zeros = jax.tree.map(jnp.zeros_like, params)
        for a in (None, anchor):
            optimizer = add_penalty_grads(0.01, 0.003, anchor=a)
            found, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
            for k, x in params.items():
                expected = oracle.gradient(np.asarray(x), 0.01, 0.003, None if a is None else np.asarray(a[k]))
                close_gradient(found[k], expected, dtype)


def test_updates_widen_as_in_optax() -> None:
    for g, p in (("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")):
        params, grads = tree(p), tree(g, seed=1)
        ours, theirs = add_penalty_grads(l2=0.05), optax.add_decayed_weights(0.1)
        found, _ = ours.update(grads, ours.init(params), params)
        expected, _ = theirs.update(grads, theirs.init(params), params)
        assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, expected)
        exact = jax.tree.map(lambda g, x: np.float64(g) + 0.1 * np.float64(x), grads, params)
        jax.tree.map(lambda f, e: np.testing.assert_array_equal(f, e.astype(f.dtype)), *_rounded(found, exact))


def _rounded(found: Tree, exact: Tree) -> tuple[Tree, Tree]:
    """Only what is rounded once to 16 bits can be asked to be the nearest value; float32 is compared to 1e-6."""
    narrow = {k: x for k, x in found.items() if x.dtype == ml_dtypes.bfloat16}
    for k in found.keys() - narrow.keys():
        np.testing.assert_allclose(found[k], exact[k], rtol=1e-6)
    return narrow, {k: exact[k] for k in narrow}


def test_strengths_by_path_tree_and_schedule() -> None:
    params, zeros = tree(), jax.tree.map(jnp.zeros_like, tree())
    rising = optax.linear_schedule(0.0, 0.4, 4)
    for l1 in (
        fp.by_path({"bias": 0.0, "scale": 0.5, "*": rising}),
        {"bias": 0.0, "scale": 0.5, "kernel": rising},
        fp.by_leaf(lambda path, leaf: {"bias": 0.0, "scale": 0.5}.get(path, 0.1)),
    ):
        optimizer = add_penalty_grads(l1)
        state = optimizer.init(params)
        for count in range(2):
            found, state = jax.jit(optimizer.update)(zeros, state, params)
            kernel = 0.1 if isinstance(l1, type(fp.by_leaf(len))) else 0.1 * count
            for k, strength in (("bias", 0.0), ("scale", 0.5), ("kernel", kernel)):
                np.testing.assert_allclose(found[k], strength * np.sign(params[k]), rtol=1e-6)
        assert int(state.count) == 2


def test_a_schedule_does_not_recompile() -> None:
    optimizer, params = add_penalty_grads(l1=optax.linear_schedule(1.0, 0.0, 5)), tree()
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    for _ in range(4):
        _, state = update(params, state, params)
    assert update._cache_size() == 1


@pytest.mark.parametrize("kind", ["add", "proximal"])
def test_mask_equals_optax_masked(kind: str) -> None:
    def make(mask: Any = None) -> Any:
        return add_penalty_grads(0.1, 0.2, mask) if kind == "add" else proximal(0.1, 0.2, learning_rate=0.5, mask=mask)

    params, grads = tree(), tree(seed=1)
    matrices = lambda p: jax.tree.map(lambda x: x.ndim > 1, p)  # noqa: E731
    own = step(make(matrices), params, grads)[0]
    wrapped = step(optax.masked(make(), matrices), params, grads)[0]
    equal(own, wrapped)
    equal((own["bias"], own["scale"]), tuple(params[k] + grads[k] for k in ("bias", "scale")))
    assert not np.array_equal(own["kernel"], params["kernel"] + grads["kernel"])


def test_masked_node_none_and_anchor() -> None:
    """Under optax.masked some subtrees are MaskedNode, and a frozen parameter's update may be None."""
    params, anchor = tree(), tree(seed=2)
    optimizer = optax.masked(add_penalty_grads(l2=0.5, anchor=anchor), {"kernel": True, "bias": False, "scale": True})
    state = optimizer.init(params)
    assert isinstance(state.inner_state.anchor["bias"], optax.MaskedNode)
    zeros = jax.tree.map(jnp.zeros_like, params)
    found, _ = jax.jit(optimizer.update)(zeros | {"scale": None}, state, params)
    np.testing.assert_array_equal(found["bias"], np.zeros(5))
    np.testing.assert_allclose(found["kernel"], params["kernel"] - anchor["kernel"], rtol=1e-6)
    assert found["scale"] is None


def test_multi_transform_and_inject_hyperparams() -> None:
    params, grads = tree(), jax.tree.map(jnp.zeros_like, tree())
    inject = optax.inject_hyperparams(add_penalty_grads, static_args=("mask", "anchor"))
    optimizer = optax.multi_transform(
        {"weights": inject(l1=optax.linear_schedule(0.0, 1.0, 2), l2=0.5), "rest": add_penalty_grads(l2=0.25)},
        {"kernel": "weights", "bias": "rest", "scale": "rest"},
    )
    state = optimizer.init(params)
    for l1 in (0.0, 0.5):
        updates, state = jax.jit(optimizer.update)(grads, state, params)
        expected = l1 * np.sign(params["kernel"]) + params["kernel"]
        np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-6)
        np.testing.assert_allclose(updates["bias"], 0.5 * params["bias"], rtol=1e-6)


def test_anchor_is_copied_into_the_state() -> None:
    """Else a jitted step that donates its state would delete the user's anchor."""
    params = tree()
    optimizer = optax.chain(add_penalty_grads(l2=0.5, anchor=params), optax.sgd(0.1))
    state = optimizer.init(params)

    def run(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    run = jax.jit(run, donate_argnums=(0, 1))
    first = jax.tree.map(np.asarray, params)
    params, state = run(params, state)
    params, state = run(params, state)
    # d = 0, then -0.1: the second step is 0.1·(1 - 0.1)
    jax.tree.map(lambda x, a: np.testing.assert_allclose(x, a - 0.19, rtol=1e-5, atol=1e-6), params, first)


def test_the_state_maps_as_optax_expects() -> None:
    params = tree()
    optimizer = add_penalty_grads(l2=0.5, anchor=params)
    found = optax.tree_map_params(optimizer, lambda x: x + 1, optimizer.init(params))
    assert isinstance(found, PenaltyState)
    equal(found.anchor, jax.tree.map(lambda x: x + 1, params))
    assert int(found.count) == 0


def test_a_missing_learning_rate() -> None:
    with pytest.raises(TypeError, match="learning_rate: it is missing"):
        proximal(0.1)


@pytest.mark.parametrize("optimizer", [add_penalty_grads(0.1), proximal(0.1, learning_rate=0.1)], ids=["add", "prox"])
def test_without_params_the_error_is_the_one_of_optax(optimizer: Any) -> None:
    params = tree()
    with pytest.raises(ValueError) as theirs:  # noqa: PT011  the message is what is compared
        optax.add_decayed_weights(0.1).update(params, optax.EmptyState(), None)
    with pytest.raises(ValueError, match=re.escape(str(theirs.value))):
        optimizer.update(params, optimizer.init(params))


def test_bad_input() -> None:
    params = tree()
    for optimizer, kind, message in (
        (add_penalty_grads(-1.0), ValueError, "l1: the strength -1.0"),
        (add_penalty_grads(l2={"kernel": 1.0}), ValueError, "l2: its tree is not a prefix"),
        (proximal(l2=float("nan"), learning_rate=0.1), ValueError, "l2: the strength nan"),
        (proximal(1.0, learning_rate=-0.1), ValueError, "learning_rate: the strength -0.1"),
        (add_penalty_grads(1.0, mask={"kernel": 1, "bias": True, "scale": True}), TypeError, "mask at 'kernel'"),
        (add_penalty_grads(1.0, anchor={"kernel": params["kernel"]}), ValueError, "anchor at '<root>'"),
        (add_penalty_grads(1.0, anchor=params | {"bias": jnp.zeros(4)}), ValueError, "anchor at 'bias'"),
    ):
        with pytest.raises(kind, match=re.escape(message)):
            step(optimizer, params, params)
    integers = {"n": jnp.arange(3)}
    with pytest.raises(TypeError, match="params at 'n'"):
        step(add_penalty_grads(1.0), integers, integers)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_leaves_are_refused_unless_masked(dtype: str) -> None:
    params, mask = {"low": jnp.ones(3, dtype), "high": jnp.ones(2)}, {"low": False, "high": True}
    for make in (add_penalty_grads, functools.partial(proximal, learning_rate=0.1)):
        whole, part = make(0.5), make(0.5, mask=mask)
        with pytest.raises(TypeError, match=f"params at 'low': a leaf of dtype {dtype} is only read"):
            whole.update(params, whole.init(params), params)
        assert part.update(params, part.init(params), params)[0]["low"] is params["low"]


# Memory


@pytest.mark.parametrize("inner", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("kind", ["add", "proximal"])
def test_donated_step_copies_nothing(kind: str, inner: str) -> None:
    """As tests/jax_only/test_memory.py: neither a copy of a parameter nor a temporary of the model's size."""
    base = {"sgd": optax.sgd(0.1), "momentum": optax.sgd(0.1, momentum=0.9), "adam": optax.adam(0.1)}[inner]
    added = [add_penalty_grads(1e-5, 1e-4), base], [base, proximal(1e-5, 1e-4, learning_rate=0.1)]
    optimizer = optax.chain(*added[kind == "proximal"])
    params = [jnp.ones((WIDTH, WIDTH)) for _ in range(6)]

    def run(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    run = jax.jit(run, donate_argnums=(0, 1)).lower(params, optimizer.init(params), params).compile()
    assert not re.findall(rf"f32\[{WIDTH},{WIDTH}\]\S* (?:copy|copy-start)\(", run.as_text())
    assert run.memory_analysis().temp_size_in_bytes < 4 * WIDTH * WIDTH
