"""`global_norm` under JAX's transformations and on meshes, and `clip_by_global_norm` beside optax's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp

from fused_penalty.jax import global_norm
from fused_penalty.optax import clip_by_global_norm
from tests.jax_only.meshes import SPECS, leaves_of, mesh_of, placed, run, small, specs_of
from tests.jax_only.optax_steps import equal, step, tree
from tests.support import oracle

ORDERS = (1, 2, math.inf)


def truth(leaves: Any, order: float) -> float:
    flat = np.concatenate([oracle.displacement(np.asarray(x)).ravel() for x in jax.tree.leaves(leaves)])
    return float(np.linalg.norm(flat, order))


@pytest.mark.parametrize("order", ORDERS)
def test_vmap_scan_and_jit(backend: str, order: float) -> None:
    rows = small(batch=(3,))
    f = lambda p: global_norm(p, order, backend=backend)  # noqa: E731
    expected = [truth(jax.tree.map(lambda x, i=i: x[i], rows), order) for i in range(3)]
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(rows), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.lax.scan(lambda c, p: (c, f(p)), 0, rows)[1], expected, rtol=1e-6)
    if order == 2:
        slopes = jax.vmap(jax.grad(f))(rows)
        for i, norm in enumerate(expected):
            jax.tree.map(lambda g, x, i=i, n=norm: np.testing.assert_allclose(g[i], x[i] / n, rtol=1e-5), slopes, rows)


def test_higher_derivatives(backend: str) -> None:
    x = jnp.array([3.0, -4.0])
    hessian = jax.hessian(lambda x: global_norm([x], backend=backend))(x)
    np.testing.assert_allclose(hessian, jax.hessian(jnp.linalg.norm)(x), rtol=1e-5, atol=1e-7)


def test_beside_optax(backend: str) -> None:
    params = tree()
    np.testing.assert_allclose(global_norm(params, backend=backend), optax.tree.norm(params), rtol=1e-6)
    zeros = jax.tree.map(jnp.zeros_like, params)
    equal(jax.grad(lambda p: global_norm(p, backend=backend))(zeros), zeros)
    assert all(jnp.isnan(g).all() for g in jax.tree.leaves(jax.grad(optax.tree.norm)(zeros)))
    equal(jax.grad(lambda x: optax.safe_norm(x, 0.0))(jnp.zeros(3)), jnp.zeros(3))


@pytest.mark.parametrize("order", ORDERS)
def test_meshes(backend: str, kind: str, order: float) -> None:
    mesh = mesh_of("2x4", kind)
    specs = specs_of(mesh)
    leaves = leaves_of(specs)
    found, counts = run(lambda p: global_norm(p, order, backend=backend), placed(mesh, leaves, specs))
    np.testing.assert_allclose(found, truth(leaves, order), rtol=1e-6)
    if backend == "cpu":
        reductions = 1 if order != math.inf else counts["all_reduces"]  # those of stats
        assert counts == {"launches": 1, "all_reduces": reductions, "all_gathers": 0, "other_collectives": 0}


def test_the_derivative_on_a_mesh(backend: str, kind: str) -> None:
    leaves = small()
    p = placed(mesh_of("2x4", kind), leaves, SPECS)
    found = jax.jit(jax.grad(lambda p: global_norm(p, backend=backend)))(p)
    jax.tree.map(lambda g, x: np.testing.assert_allclose(g, x / truth(leaves, 2), rtol=1e-5), found, leaves)


# clip_by_global_norm


@pytest.mark.parametrize("share", [0.25, 1.0, 4.0, 0.0, math.inf])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_clipping_equals_optax(share: float, wrap: Any, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        grads = tree(dtype)
        max_norm = share * truth(grads, 2)
        ours, theirs = clip_by_global_norm(max_norm), optax.clip_by_global_norm(max_norm)
        state = ours.init(grads)
        assert state == theirs.init(grads) == optax.EmptyState()
        found, state = wrap(ours.update)(grads, state)
        expected, _ = wrap(theirs.update)(grads, state)
        assert state == optax.EmptyState()
        bound = {"float16": 2.0**-8, "bfloat16": 2.0**-5, "float32": 1e-6, "float64": 1e-13}[dtype]
        for f, e, g in zip(*map(jax.tree.leaves, (found, expected, grads)), strict=True):
            assert f.dtype == e.dtype == g.dtype
            if share == 1 or not math.isfinite(share):  # optax's sum of 16-bit squares may end on either side
                bound = max(bound, 2.0**-7)
            np.testing.assert_allclose(np.float64(f), np.float64(e), rtol=bound)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_norms_that_are_not_finite(value: float) -> None:
    grads = {"a": jnp.array([1.0, value, 0.0]), "b": jnp.ones(2)}
    ours, theirs = clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)
    equal(ours.update(grads, ours.init(grads))[0], theirs.update(grads, theirs.init(grads))[0])


def test_in_a_chain_with_none_masked_nodes_and_schedules() -> None:
    params, grads = tree(), tree(seed=1)
    for make in (
        lambda clip: optax.chain(clip(0.5), optax.adam(0.1)),
        lambda clip: optax.chain(
            optax.masked(clip(0.5), {"kernel": True, "bias": False, "scale": True}), optax.sgd(0.1)
        ),
        lambda clip: optax.chain(optax.inject_hyperparams(clip)(max_norm=jnp.float32(0.5)), optax.sgd(0.1)),
    ):
        found, expected = (
            step(make(clip_by_global_norm), params, grads),
            step(make(optax.clip_by_global_norm), params, grads),
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found[0], expected[0])
    clip = clip_by_global_norm(0.5)
    assert clip.update({"a": jnp.ones(3), "b": None}, clip.init(None))[0]["b"] is None
    assert clip.update({}, clip.init(None))[0] == {}


def test_a_traced_limit_does_not_recompile() -> None:
    grads, count = tree(), []

    @jax.jit
    def run(grads: Any, max_norm: Any) -> Any:
        count.append(1)
        clip = clip_by_global_norm(max_norm)
        return clip.update(grads, clip.init(grads))[0]

    for max_norm in (0.5, 0.25):
        np.testing.assert_allclose(truth(run(grads, jnp.float32(max_norm)), 2), max_norm, rtol=1e-6)
    assert count == [1]


def test_bad_input() -> None:
    for value, kind in (
        (-1.0, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (True, TypeError),
        (None, TypeError),
    ):
        with pytest.raises(kind, match=r"^max_norm: .* is not a norm\. Use a float >= 0"):
            clip_by_global_norm(value)
    with pytest.raises(ValueError, match=r"^max_norm: an array of shape"):
        clip_by_global_norm(jnp.ones(2))
    clip = clip_by_global_norm(1.0)
    with pytest.raises(TypeError, match=r"^params at '0': a leaf of dtype int32"):
        clip.update({"n": jnp.arange(3)}, clip.init(None))
