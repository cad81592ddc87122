"""`fused_penalty.jax.optim` against the formulas in float64 NumPy, and against optax where there is no penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp

from fused_penalty.jax.optim import Optimizer, adam, adamw, sgd
from tests.support.edges import SIZES
from tests.support.frontends import DTYPES
from tests.support.step_oracle import Oracle

# (ours, the oracle's step, its fields)
Case = tuple[Callable[..., Optimizer], Callable[[Oracle, Any], None], dict[str, Any]]
CASES: dict[str, Case] = {
    "sgd": (sgd, lambda o, g: o.sgd(g), {}),
    "sgd, weight decay": (lambda lr, **k: sgd(lr, weight_decay=0.1, **k), lambda o, g: o.sgd(g), {"weight_decay": 0.1}),
    "momentum": (lambda lr, **k: sgd(lr, 0.9, **k), lambda o, g: o.sgd(g, 0.9), {}),
    "nesterov": (lambda lr, **k: sgd(lr, 0.9, True, **k), lambda o, g: o.sgd(g, 0.9, nesterov=True), {}),
    "adam": (adam, lambda o, g: o.adam(g), {}),
    "adam, weight decay": (
        lambda lr, **k: adam(lr, 0.5, 0.9, 1e-3, weight_decay=0.1, **k),
        lambda o, g: o.adam(g, (0.5, 0.9), 1e-3),
        {"weight_decay": 0.1},
    ),
    "adam, b1 = 0": (lambda lr, **k: adam(lr, 0.0, **k), lambda o, g: o.adam(g, (0.0, 0.999)), {}),
    "amsgrad": (lambda lr, **k: adam(lr, amsgrad=True, **k), lambda o, g: o.adam(g, amsgrad=True), {}),
    "adamw": (
        lambda lr, **k: adamw(lr, weight_decay=0.1, **k),
        lambda o, g: o.adam(g, decoupled=True),
        {"weight_decay": 0.1},
    ),
}
# (l1, l2, how the penalty acts, whether there is an anchor)
PENALTIES = [
    (0.0, 0.0, "prox", False),
    (0.05, 0.0, "prox", False),
    (0.05, 0.3, "prox", True),
    (0.05, 0.3, "grad", True),
    (0.05, 0.3, "decoupled", False),
]


@pytest.fixture(params=["cpu", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def numbers(sizes: list[int], seed: int, dtype: Any = np.float32) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(n).astype(dtype)) for n in sizes]


def trained(optimizer: Optimizer, params: Any, gradients: Any) -> tuple[Any, Any, Any]:
    """(params, state, the summaries) after a step for each gradient."""
    state, step, found = optimizer.init(params), jax.jit(optimizer.step), []
    for g in gradients:
        params, state, summary = step(params, g, state)
        found.append(summary)
    return params, state, found


@pytest.mark.parametrize(("l1", "l2", "penalty", "anchored"), PENALTIES)
@pytest.mark.parametrize("name", CASES)
def test_as_the_formula(name: str, l1: float, l2: float, penalty: str, anchored: bool, backend: str) -> None:
    """Three steps on leaves of some sizes, and what they find."""
    make, oracle_step, fields = CASES[name]
    sizes = [0, 1, 17, 1000]
    params, gradients = numbers(sizes, 0), [numbers(sizes, 2 + t) for t in range(3)]
    anchor = numbers(sizes, 1) if anchored else None
    optimizer = make(0.1, l1=l1, l2=l2, penalty=penalty, anchor=anchor, backend=backend)
    found, _, summaries = trained(optimizer, params, gradients)
    origins = [np.asarray(a, np.float64) for a in anchor] if anchor else [0.0] * len(sizes)
    oracles = [
        Oracle(np.asarray(x, np.float64), a, lr=0.1, l1=l1, l2=l2, penalty=penalty, **fields)
        for x, a in zip(params, origins, strict=True)
    ]
    for g, summary in zip(gradients, summaries, strict=True):
        before = [o.x for o in oracles]
        np.testing.assert_allclose(summary.penalty, sum(o.value() for o in oracles), rtol=1e-5)
        for o, value in zip(oracles, g, strict=True):
            oracle_step(o, np.asarray(value, np.float64))
        change = np.concatenate([o.x - x for o, x in zip(oracles, before, strict=True)])
        np.testing.assert_allclose(summary.step_norm, np.linalg.norm(change), rtol=1e-5)
        np.testing.assert_allclose(summary.grad_norm, np.linalg.norm(np.concatenate(g)), rtol=1e-5)
    for x, o in zip(found, oracles, strict=True):
        np.testing.assert_allclose(x, o.x, rtol=2e-5, atol=2e-6)
    zeros = sum(int((np.asarray(x) == 0).sum()) for x in found)
    if penalty == "prox" and l1 and not anchored:
        assert zeros > 0
        assert int(summaries[-1].zeros) == zeros


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("wide", [False, True])
def test_dtypes(dtype: str, wide: bool, backend: str) -> None:
    """Rounded once a step, the state in the leaf's dtype or in float32."""
    with jax.enable_x64(dtype == "float64"):
        kind = DTYPES[dtype]
        sizes = SIZES if backend == "cpu" else [0, 1, 1000]  # XLA compiles the reference leaf by leaf
        params, gradients = numbers(sizes, 0, kind), [numbers(sizes, 1 + t, kind) for t in range(2)]
        optimizer = adam(0.1, l1=0.05, l2=0.3, state_dtype=jnp.float32 if wide else None, backend=backend)
        found, state, _ = trained(optimizer, params, gradients)
        kept = jnp.float32 if wide and dtype != "float64" else kind
        assert {x.dtype for x in found} == {np.dtype(kind)}
        assert {x.dtype for x in jax.tree.leaves((state.mu, state.nu))} == {np.dtype(kept)}
        unit = float(jnp.finfo(kind).eps)
        for i, x in enumerate(params):
            o = Oracle(np.asarray(x, np.float64), lr=0.1, l1=0.05, l2=0.3)
            for g in gradients:
                o.adam(np.asarray(g[i], np.float64))
                if kept == kind:  # what the optimizer keeps, it rounds
                    o.state = {k: np.asarray(v.astype(kind), np.float64) for k, v in o.state.items()}
                o.x = np.asarray(o.x.astype(kind), np.float64)
            np.testing.assert_allclose(np.asarray(found[i], np.float64), o.x, rtol=32 * unit, atol=32 * unit)


def test_a_mixed_tree(backend: str) -> None:
    """Leaves of all dtypes and shapes, in nested containers, in one launch."""
    params = {"a": jnp.ones((3, 4), jnp.bfloat16), "b": [jnp.ones((), jnp.float16), (jnp.zeros((0, 2)),)], "c": None}
    grads = jax.tree.map(jnp.ones_like, params)
    new, state, summary = trained(adamw(0.5, weight_decay=0.0, l1=1.0, backend=backend), params, [grads])
    assert jax.tree.structure(new) == jax.tree.structure(params)
    jax.tree.map(lambda x, y: np.testing.assert_equal((x.shape, x.dtype), (y.shape, y.dtype)), new, params)
    assert float(summary[0].penalty) == 13.0
    assert int(state.count) == 1


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_as_optax_without_a_penalty(name: str, backend: str) -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed")
    make = CASES[name][0]
    theirs = {
        "sgd": optax.sgd(0.1),
        "momentum": optax.sgd(0.1, 0.9),
        "nesterov": optax.sgd(0.1, 0.9, True),
        "adam": optax.adam(0.1),
        "adamw": optax.adamw(0.1, weight_decay=0.1),
    }[name]
    params, gradients = numbers([1, 1000], 0), [numbers([1, 1000], 1 + t) for t in range(20)]
    found, state, _ = trained(make(0.1, backend=backend), params, gradients)
    want, kept = params, theirs.init(params)
    for g in gradients:
        updates, kept = theirs.update(g, kept, want)
        want = optax.apply_updates(want, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), found, want)
    for field in ("mu", "nu", "trace"):
        if (ours := optax.tree.get(state, field)) is not None:
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), ours, optax.tree.get(kept, field)
            )


def test_the_bias_correction_keeps_its_digits(backend: str) -> None:
    """1 - 0.999 in float32 is wrong in the fifth digit; after one step from zeros the update is lr·g/(|g| + eps)."""
    params, g = [jnp.zeros(1000)], numbers([1000], 0)
    found, _, _ = trained(adam(0.5, eps=0.0, backend=backend), params, [g])
    np.testing.assert_allclose(found[0], -0.5 * np.sign(g[0]), rtol=4e-7)


@pytest.mark.parametrize("order", ["l1", "l2"])
def test_what_has_no_gradient_yet_is_left_alone(order: str, backend: str) -> None:
    params, grads = [jnp.array([1.0, 1.0])], [jnp.array([0.0, 0.5])]
    found, _, _ = trained(adam(0.1, backend=backend, **{order: 1.0}), params, [grads, grads])
    assert float(found[0][0]) == 1.0
    assert float(found[0][1]) < 0.8


def test_nan_and_inf_in_gradients(backend: str) -> None:
    grads = [jnp.array([np.nan, np.inf, 1.0, -np.inf])]
    found, _, summaries = trained(sgd(0.1, l1=0.1, backend=backend), [jnp.ones(4)], [grads])
    assert int(summaries[0].nonfinite) == 3
    assert np.isnan(found[0][0])
    assert np.isfinite(found[0][2])
