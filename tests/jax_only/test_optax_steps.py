"""Each step of the proximal optimizers: against float64 formulas, and against optax's own where there is no penalty."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp

import fused_penalty as fp
from fused_penalty.optax import proximal_adagrad, proximal_adamw, proximal_sgd
from tests.jax_only import step_oracle
from tests.jax_only.optax_steps import Tree, equal, tree

LR, L1, L2 = 0.05, 0.3, 0.2
# name: (ours, by formula, optax's own)
FLAGS: dict[str, tuple[Any, Any, Any]] = {
    "sgd": (proximal_sgd, step_oracle.sgd, optax.sgd),
    "momentum": tuple(functools.partial(f, momentum=0.9) for f in (proximal_sgd, step_oracle.sgd, optax.sgd)),
    "nesterov": tuple(
        functools.partial(f, momentum=0.8, nesterov=True) for f in (proximal_sgd, step_oracle.sgd, optax.sgd)
    ),
    "adagrad": (proximal_adagrad, step_oracle.adagrad, optax.adagrad),
    "adagrad from 0": (
        functools.partial(proximal_adagrad, initial_accumulator_value=0.0),
        functools.partial(step_oracle.adagrad, initial=0.0),
        functools.partial(optax.adagrad, initial_accumulator_value=0.0),
    ),
}
for decay, root, nesterov, amsgrad in itertools.product((0.0, 0.1), (0.0, 1e-4), (False, True), (False, True)):
    if nesterov and amsgrad:
        continue
    flags = {"weight_decay": decay, "eps_root": root}
    if amsgrad:
        theirs = functools.partial(
            lambda lr, weight_decay, **kw: optax.chain(
                optax.scale_by_amsgrad(**kw), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(lr)
            ),
            **flags,
        )
    else:
        theirs = functools.partial(optax.adamw, **flags, nesterov=nesterov)
    FLAGS[f"adamw {decay} {root}{' nesterov' * nesterov}{' amsgrad' * amsgrad}"] = (
        *(
            functools.partial(f, **flags, nesterov=nesterov, amsgrad=amsgrad)
            for f in (proximal_adamw, step_oracle.adamw)
        ),
        theirs,
    )


def several(steps: int, dtype: str = "float32") -> list[Tree]:
    return [tree(dtype, seed=10 + t) for t in range(steps)]


def ran(optimizer: Any, params: Any, gradients: list[Any], state: Any = None) -> Any:
    """(params, state) after a step for each gradient, in NumPy."""

    @jax.jit
    def one(params: Any, state: Any, g: Any) -> Any:
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params) if state is None else state
    for g in gradients:
        params, state = one(params, state, g)
    return jax.tree.map(np.asarray, (params, state))


@pytest.mark.parametrize("anchored", [False, True], ids=["zero", "anchor"])
@pytest.mark.parametrize("name", FLAGS)
def test_follows_the_formula(name: str, anchored: bool) -> None:
    make, formula, _ = FLAGS[name]
    with jax.enable_x64(True):
        params, gradients = tree("float64"), several(12, "float64")
        anchor = tree("float64", seed=3) if anchored else None
        found, _ = ran(make(LR, l1=L1, l2=L2, anchor=anchor), params, gradients)
    for k, x in params.items():
        base = 0.0 if anchor is None else np.asarray(anchor[k])
        exact = step_oracle.run(formula(LR), np.asarray(x), [np.asarray(g[k]) for g in gradients], L1, L2, base)
        np.testing.assert_allclose(found[k], exact, rtol=1e-12, atol=1e-13)
    if anchor is None:
        assert any(np.count_nonzero(x == 0) for x in found.values())


@pytest.mark.parametrize("name", FLAGS)
def test_without_a_penalty_it_is_optax_bit_for_bit(name: str) -> None:
    """100 steps, also in 16 bits: updates and optax's part of the state."""
    make, _, theirs = FLAGS[name]
    for dtype in ("float32", "bfloat16"):
        params, gradients = tree(dtype), several(100, dtype)
        (found, state), (expected, own) = (ran(o, params, gradients) for o in (make(LR), theirs(LR)))
        equal(found, expected)
        equal(state[0], own)


@pytest.mark.parametrize("name", FLAGS)
def test_a_traced_zero_is_optax_to_rounding(name: str) -> None:
    """The whole way through the proximal step: it gives back what it got, but XLA may contract other products."""
    make, _, theirs = FLAGS[name]
    params, gradients = tree(), several(100)
    found, _ = ran(make(LR, l1=jnp.float32(0), l2=jnp.float32(0)), params, gradients)
    expected, _ = ran(theirs(LR), params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=5e-7), found, expected)


@pytest.mark.parametrize("name", ["momentum", "adagrad", "adamw 0.1 0.0", "adamw 0.1 0.0 amsgrad"])
def test_schedules(name: str) -> None:
    make, formula, _ = FLAGS[name]
    rate, rising = optax.linear_schedule(0.1, 0.01, 6), optax.linear_schedule(0.0, 0.6, 6)
    with jax.enable_x64(True):
        params, gradients = tree("float64"), several(8, "float64")
        found, _ = ran(make(rate, l1=rising, l2=fp.by_path({"bias": rising, "*": L2})), params, gradients)
        for k, x in params.items():
            exact = step_oracle.run(
                formula(lambda t: float(rate(t))), np.asarray(x), [np.asarray(g[k]) for g in gradients],
                lambda t: float(rising(t)), (lambda t: float(rising(t))) if k == "bias" else L2,
            )  # fmt: skip
            np.testing.assert_allclose(found[k], exact, rtol=1e-6, atol=1e-7)  # schedules give float32


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adamw 0.1 0.0"])
def test_masks_strengths_and_optax_masked(name: str) -> None:
    """A leaf that the mask leaves out, or whose strengths are 0, is optax's; by path, tree and optax.masked agree."""
    make, _, theirs = FLAGS[name]
    params, gradients = tree(), several(5)
    plain, full = (ran(o, params, gradients)[0] for o in (theirs(LR), make(LR, l1=L1, l2=L2)))
    flags = {"kernel": True, "bias": False, "scale": False}
    for optimizer in (
        make(LR, l1=L1, l2=L2, mask=flags),
        make(LR, l1=L1, l2=L2, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        make(LR, l1=fp.by_path({"kernel": L1, "*": 0.0}), l2={"kernel": L2, "bias": 0.0, "scale": 0.0}),
        make(LR, l1=fp.by_leaf(lambda path, leaf: L1 * (leaf.ndim > 1)), l2=L2, mask=flags),
        optax.multi_transform({True: make(LR, l1=L1, l2=L2), False: theirs(LR)}, flags),
    ):
        found, _ = ran(optimizer, params, gradients)
        np.testing.assert_allclose(found["kernel"], full["kernel"], rtol=1e-6, atol=1e-6)
        equal((found["bias"], found["scale"]), (plain["bias"], plain["scale"]))


def test_the_mask_of_the_decay_is_another() -> None:
    params, gradients = tree(), several(5)
    flags = {"kernel": True, "bias": False, "scale": True}
    found, _ = ran(proximal_adamw(LR, weight_decay=0.5, weight_decay_mask=flags), params, gradients)
    expected, _ = ran(optax.adamw(LR, weight_decay=0.5, mask=flags), params, gradients)
    equal(found, expected)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adamw 0.1 0.0", "adamw 0.0 0.0 amsgrad"])
def test_a_bad_gradient_stays_where_it_is(name: str) -> None:
    """NaN and inf pass, and only in their own elements. An infinite weight becomes NaN: updates are differences."""
    make, _, theirs = FLAGS[name]
    params = {"w": jnp.arange(1.0, 7.0)}
    gradients = [{"w": jnp.array([1.0, np.nan, 1.0, np.inf, 1.0, -np.inf])}, {"w": jnp.ones(6)}]
    once, twice = (ran(make(LR, l1=L1, l2=L2), params, gradients[:n])[0]["w"] for n in (1, 2))
    np.testing.assert_array_equal(np.isnan(once), np.isnan(ran(theirs(LR), params, gradients[:1])[0]["w"]))
    np.testing.assert_array_equal(np.isfinite(twice), [True, False, True, False, True, False])


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adamw 0.1 0.0", "adamw 0.0 0.0 amsgrad"])
def test_a_negative_or_nan_array_gives_nan(name: str) -> None:
    make, params, gradients = FLAGS[name][0], tree(), several(1)
    for value in (-1.0, np.nan):
        for strengths in ({"l1": jnp.float32(value)}, {"l1": L1, "l2": jnp.float32(value)}):
            found, _ = ran(make(LR, **strengths), params, gradients)
            assert all(np.isnan(x).all() for x in found.values())
        found, _ = ran(make(jnp.float32(value), l1=L1), params, gradients)
        assert all(np.isnan(x).all() for x in found.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adamw 0.1 0.0001", "adamw 0.0 0.0001 amsgrad"])
def test_16_bits(name: str, dtype: str) -> None:
    """Dtypes as in optax, exact zeros, and the formula to the roundings of optax's own state."""
    make, formula, theirs = FLAGS[name]
    params, gradients = tree(dtype), several(6, dtype)
    found, state = ran(make(LR, l1=1.0, l2=L2), params, gradients)
    expected, own = ran(theirs(LR), params, gradients)
    assert jax.tree.map(lambda x: x.dtype, (found, state[0])) == jax.tree.map(lambda x: x.dtype, (expected, own))
    zeros = 0
    for k, x in params.items():
        exact = step_oracle.run(formula(LR), np.asarray(x), [np.asarray(g[k]) for g in gradients], 1.0, L2)
        np.testing.assert_allclose(np.asarray(found[k], np.float64), exact, rtol=0.05, atol=0.05)
        zeros += np.count_nonzero(found[k] == 0)
    assert zeros > 2


@pytest.mark.parametrize(
    "name", ["adamw 0.0 0.0", "adamw 0.1 0.0", "adamw 0.0 0.0001", "adamw 0.0 0.0 amsgrad", "adagrad from 0"]
)
def test_rows_that_no_gradient_has_reached_stay(name: str) -> None:
    """Of an embedding: lr·l1/eps would make them zero at once. After its first gradient a row is like any other."""
    make, _, theirs = FLAGS[name]
    table = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)
    seen = jnp.zeros((6, 4)).at[:3].set(jnp.ones((3, 4)))
    for anchor in (None, table + 0.3):
        optimizer = make(LR, l1=0.1, l2=0.1, anchor=anchor)
        found, state = ran(optimizer, table, [seen] * 5)
        expected, _ = ran(theirs(LR), table, [seen] * 5)
        np.testing.assert_array_equal(found[3:], expected[3:])
        if "0.1" not in name.split():
            np.testing.assert_array_equal(found[3:], table[3:])
        assert np.all(found[:3] != expected[:3])
        late, _ = ran(optimizer, found, [seen.at[3].set(1.0)], state)
        assert np.all(late[3] != found[3])
        np.testing.assert_array_equal(late[4:] == table[4:], found[4:] == table[4:])
