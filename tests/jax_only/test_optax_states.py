"""The proximal optimizers as optax has its own: state classes, checkpoints, wrappers, errors, memory."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp

from fused_penalty.optax import PenaltyState, proximal, proximal_adagrad, proximal_adamw, proximal_sgd
from tests.jax_only.optax_steps import equal, step, tree

L1, L2 = 0.01, 0.02
OWN: dict[str, tuple[Callable[..., Any], Any, type, str]] = {  # ours, optax's, the class of its state, a field of it
    "sgd": (proximal_sgd, optax.sgd, optax.EmptyState, ""),
    "momentum": (
        functools.partial(proximal_sgd, momentum=0.9), functools.partial(optax.sgd, momentum=0.9), optax.TraceState,
        "trace",
    ),
    "adamw": (proximal_adamw, optax.adamw, optax.ScaleByAdamState, "nu"),
    "amsgrad": (functools.partial(proximal_adamw, amsgrad=True), None, optax.ScaleByAmsgradState, "nu_max"),
    "adagrad": (proximal_adagrad, optax.adagrad, optax.ScaleByRssState, "sum_of_squares"),
}  # fmt: skip
MAKERS = {name: row[0] for name, row in OWN.items()}


@pytest.mark.parametrize("rate", [0.1, optax.linear_schedule(0.1, 0.0, 9)], ids=["float", "schedule"])
@pytest.mark.parametrize("name", OWN)
def test_the_state_is_that_of_optax(name: str, rate: Any) -> None:
    make, theirs, kind, field = OWN[name]
    params = tree()
    _, state = step(make(rate, l1=L1, l2=L2), params, tree(seed=1))
    own, penalty = state
    assert type(own[0]) is kind
    assert type(own[-1]) is (optax.ScaleByScheduleState if callable(rate) else optax.EmptyState)
    assert isinstance(penalty, PenaltyState)
    assert int(penalty.count) == 1
    if theirs is not None:
        _, expected = step(theirs(rate), params, tree(seed=1))
        assert jax.tree.structure(own) == jax.tree.structure(expected)
        equal(own, expected)
    if field:
        equal(optax.tree.get(state, field), getattr(own[0], field))


@pytest.mark.parametrize("name", ["momentum", "adamw", "adagrad"])
def test_a_checkpoint_of_optax_goes_on_with_its_own_rate(name: str) -> None:
    """The first half of the state is all that optax had, so the threshold follows the schedule from where it is."""
    make, theirs, _, _ = OWN[name]
    rate = optax.piecewise_constant_schedule(0.1, {2: 0.25})
    params, state = tree(), theirs(rate).init(tree())
    for seed in (1, 2, 3):
        params, state = step(theirs(rate), params, tree(seed=seed), state)
    late = make(rate, l1=L1, l2=L2)
    found, _ = step(late, params, tree(seed=4), (state, late.init(params)[1]))
    constant = make(0.025, l1=L1, l2=L2)
    expected, _ = step(constant, params, tree(seed=4), ((*state[:-1], optax.EmptyState()), constant.init(params)[1]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), found, expected)


def test_the_chain_with_proximal_has_the_same_state() -> None:
    params = tree()
    chain = optax.chain(optax.adamw(0.1), proximal(L1, L2, learning_rate=0.1))
    assert jax.tree.structure(chain.init(params)) == jax.tree.structure(proximal_adamw(0.1, l1=L1).init(params))


@pytest.mark.parametrize("name", MAKERS)
def test_inject_hyperparams(name: str) -> None:
    """Strengths and rates become arrays in the state; a schedule given to it is called by it."""
    make, params, grads = MAKERS[name], tree(), tree(seed=1)
    rate, rising = optax.linear_schedule(0.1, 0.0, 4), optax.linear_schedule(0.0, L1, 2)
    injected = optax.inject_hyperparams(make)(learning_rate=rate, l1=rising, l2=L2)
    plain = make(rate, l1=rising, l2=L2)
    a, b = injected.init(params), plain.init(params)
    x = y = params
    for _ in range(3):
        (x, a), (y, b) = step(injected, x, grads, a), step(plain, y, grads, b)
    # as an array b2 is float32, and 1 - b2 has four digits
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), x, y)
    assert a.hyperparams["l1"].shape == ()


@pytest.mark.parametrize("name", MAKERS)
def test_masked_nodes_none_and_the_anchor(name: str) -> None:
    """Under optax.masked some subtrees are MaskedNode, and a frozen parameter's update may be None."""
    params, anchor, grads = tree(), tree(seed=2), tree(seed=1)
    optimizer = optax.masked(
        MAKERS[name](0.1, l1=L1, l2=L2, anchor=anchor), {"kernel": True, "bias": False, "scale": True}
    )
    state = optimizer.init(params)
    assert isinstance(state.inner_state[1].anchor["bias"], optax.MaskedNode)
    updates, _ = jax.jit(optimizer.update)(grads, state, params)
    equal(updates["bias"], grads["bias"])
    whole, _ = step(MAKERS[name](0.1, l1=L1, l2=L2, anchor=anchor), params, grads)
    np.testing.assert_allclose(params["kernel"] + updates["kernel"], whole["kernel"], rtol=1e-6, atol=1e-6)

    frozen = {"w": params["kernel"], "frozen": (jnp.arange(3), "what it likes")}
    optimizer = MAKERS[name](0.1, l1=L1, l2=L2)
    state = optimizer.init({"w": params["kernel"], "frozen": None})
    updates, _ = optimizer.update({"w": grads["kernel"], "frozen": None}, state, frozen)
    assert updates["frozen"] is None


@pytest.mark.parametrize("name", MAKERS)
def test_the_anchor_is_copied_and_the_state_maps_as_optax_expects(name: str) -> None:
    params = tree()
    optimizer = MAKERS[name](0.1, l1=L1, l2=L2, anchor=params)
    mapped = optax.tree_map_params(optimizer, lambda x: x + 1, optimizer.init(params))
    equal(mapped[1].anchor, jax.tree.map(lambda x: x + 1, params))
    assert int(mapped[1].count) == 0

    def run(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    run, state = jax.jit(run, donate_argnums=(0, 1)), optimizer.init(params)
    for _ in range(2):
        params, state = run(params, state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


@pytest.mark.parametrize("name", MAKERS)
def test_bad_input(name: str) -> None:
    make, params = MAKERS[name], tree()
    for kind, message, arguments in (
        (ValueError, "l1: the strength -1.0", {"l1": -1.0}),
        (ValueError, "l2: the strength nan", {"l2": float("nan")}),
        (ValueError, "l2: its tree is not a prefix", {"l2": {"kernel": 1.0}}),
        (TypeError, "l1: 'much' is not a strength", {"l1": "much"}),
        (ValueError, "learning_rate: the strength -0.1", {"learning_rate": -0.1}),
        (TypeError, "mask at 'kernel'", {"l1": 1.0, "mask": {"kernel": 1, "bias": True, "scale": True}}),
        (ValueError, "anchor at '<root>'", {"l1": 1.0, "anchor": {"kernel": params["kernel"]}}),
        (ValueError, "anchor at 'bias'", {"l1": 1.0, "anchor": params | {"bias": jnp.zeros(4)}}),
    ):
        with pytest.raises(kind, match=re.escape(message)):
            step(make(**({"learning_rate": 0.1} | arguments)), params, params)
    with pytest.raises(ValueError, match="current value of parameters"):
        make(0.1).update(params, make(0.1).init(params))


def test_flags_that_optax_does_not_have() -> None:
    with pytest.raises(ValueError, match=r"^amsgrad: it is given with nesterov\."):
        proximal_adamw(0.1, amsgrad=True, nesterov=True)
    with pytest.raises(ValueError, match=r"^metric: 'auto' is unknown\."):
        proximal_adamw(0.1, metric="auto")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_leaves_are_refused_unless_masked(dtype: str) -> None:
    params, mask = {"low": jnp.ones(3, dtype), "high": jnp.ones(2)}, {"low": False, "high": True}
    whole, part = proximal_sgd(0.5, l1=0.5), proximal_sgd(0.5, l1=0.5, mask=mask)
    with pytest.raises(TypeError, match=f"params at 'low': a leaf of dtype {dtype} is only read"):
        whole.update(params, whole.init(params), params)
    part.update(params, part.init(params), params)


WIDTH, LAYERS = 256, 6
WEIGHT = 4 * WIDTH * WIDTH


def compiled(optimizer: Any) -> tuple[int, int]:
    """(copies of a leaf, bytes of temporary memory) of a donated step."""
    params = [jnp.ones((WIDTH, WIDTH)) for _ in range(LAYERS)]

    def run(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    executable = jax.jit(run, donate_argnums=(0, 1)).lower(params, optimizer.init(params), params).compile()
    copies = re.findall(rf"f32\[{WIDTH},{WIDTH}\]\S* (?:copy|copy-start)\(", executable.as_text())
    return len(copies), executable.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("anchored", [False, True], ids=["zero", "anchor"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "adagrad"])
def test_a_donated_step_takes_the_memory_of_the_plain_optimizer(name: str, anchored: bool) -> None:
    make, theirs, _, _ = OWN[name]
    anchor = [jnp.zeros((WIDTH, WIDTH)) for _ in range(LAYERS)] if anchored else None
    l1 = {0: 1e-5, 1: 2e-5}
    strengths = {"l1": [l1[i % 2] for i in range(LAYERS)], "l2": 1e-4}
    copies, temp = compiled(make(0.1, **strengths, anchor=anchor))
    assert copies == 0
    assert temp <= compiled(theirs(0.1))[1] + 2**12
    assert temp < WEIGHT


def test_a_copy_is_seen() -> None:
    """The test of the test: a norm of the whole step, used for every leaf, keeps all of it."""
    clipped = optax.chain(proximal_sgd(0.1, 0.9, l1=L1), optax.clip_by_global_norm(1.0))
    assert compiled(clipped)[1] >= WEIGHT
