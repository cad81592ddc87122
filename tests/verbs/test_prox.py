"""The proximal step of every edge case, on every backend, against float64."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fused_penalty as fp
from tests.support import edges, oracle
from tests.support.check import close_gradient
from tests.support.frontends import DTYPES, Frontend

L1, L2, STEP = 0.2, 0.03, 0.7


def scale_of(leaf: np.ndarray, anchor: np.ndarray | None = None) -> np.ndarray:
    """The magnitude of what is subtracted."""
    return np.abs(leaf.astype(np.float64)) + (0 if anchor is None else np.abs(anchor.astype(np.float64)))


def test_every_edge_case(frontend: Frontend, dtype: str) -> None:
    tree = dict(edges.edge_leaves(DTYPES[dtype], frontend.chunk))
    with frontend.scope(tree):
        found = frontend.map(frontend.prox(frontend.to(tree), L1, L2, step=STEP))
    for name, leaf in tree.items():
        expected = oracle.prox(leaf, L1, L2, STEP)
        close_gradient(found[name], expected, dtype, scale_of(leaf))
        np.testing.assert_array_equal(found[name].astype(np.float64)[np.abs(leaf.astype(np.float64)) < 0.13], 0)


def test_towards_an_anchor(frontend: Frontend, dtype: str) -> None:
    rng = np.random.default_rng(2)
    leaves = [rng.standard_normal(n).astype(DTYPES[dtype]) for n in (1, 33, frontend.chunk + 7)]
    anchors = [rng.standard_normal(x.shape).astype(x.dtype) for x in leaves]
    with frontend.scope(leaves):
        found = frontend.map(frontend.prox(frontend.to(leaves), L1, L2, step=STEP, anchor=frontend.to(anchors)))
    for x, a, y in zip(leaves, anchors, found, strict=True):
        close_gradient(y, oracle.prox(x, L1, L2, STEP, a), dtype, scale_of(x, a))
        near = np.abs(oracle.displacement(x, a)) < 0.13
        np.testing.assert_array_equal(y[near], a[near])  # exactly the anchor, not about it


def test_it_is_the_minimiser(frontend: Frontend) -> None:
    """Not our formula: the definition, on a grid around each result."""
    x = np.linspace(-2, 2, 41).astype(np.float32)
    (found,) = frontend.map(frontend.prox(frontend.to([x]), 0.5, 0.25, step=0.8))

    def objective(y: np.ndarray) -> np.ndarray:
        return 0.5 * np.abs(y) + 0.25 * y**2 + (y - x.astype(np.float64)) ** 2 / (2 * 0.8)

    best = objective(found.astype(np.float64))
    for shift in (-0.1, -1e-3, 1e-3, 0.1):
        assert (objective(found + shift) >= best - 1e-7).all()


def test_strengths_masks_and_frozen_terms(frontend: Frontend) -> None:
    tree = {"w": np.float32([1.0, -0.25, 0.5]), "b": np.float32([2.0, -0.1]), "c": np.float32([0.25])}
    mask = {"w": True, "b": True, "c": False}
    rule = fp.by_path({"w": 0.5, "b": 0.0, "*": 9.0})
    found = frontend.map(frontend.prox(frontend.to(tree), rule, {"w": 0.0, "b": 0.5, "c": 1.0}, mask=mask))
    np.testing.assert_array_equal(found["w"], np.float32([0.5, 0.0, 0.0]))
    np.testing.assert_allclose(found["b"], np.float32([1.0, -0.05]))
    np.testing.assert_array_equal(found["c"], tree["c"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_stays(frontend: Frontend, dtype: str, value: float) -> None:
    leaf = np.array([1.0, value, 0.1], DTYPES[dtype])
    with frontend.scope([leaf]):
        (found,) = frontend.map(frontend.prox(frontend.to([leaf]), 0.5, 0.25))
    np.testing.assert_equal(float(found[1]), value)
    assert np.isfinite(found[[0, 2]].astype(np.float32)).all()


def test_a_zero_step_changes_nothing(frontend: Frontend, dtype: str) -> None:
    leaf = np.array([1.0, -3.0, 0.1, 0.0], DTYPES[dtype])
    with frontend.scope([leaf]):
        (found,) = frontend.map(frontend.prox(frontend.to([leaf]), 0.5, 0.25, step=0.0))
    np.testing.assert_array_equal(found, leaf)


@pytest.mark.parametrize(("step", "kind"), [(-1.0, ValueError), (np.inf, ValueError), ("1", TypeError)])
def test_bad_steps(frontend: Frontend, step: Any, kind: type[Exception]) -> None:
    params = frontend.to([np.ones(2, np.float32)])
    with pytest.raises(kind, match="step: "):
        frontend.prox(params, 0.1, step=step)


jax: Any = importlib.import_module("jax") if importlib.util.find_spec("jax") else None

TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "grad": lambda f: jax.grad(f, argnums=(0, 1, 2, 3)),
    "jit of grad": lambda f: jax.jit(jax.grad(f, argnums=(0, 1, 2, 3))),
    "jacfwd": lambda f: jax.jacfwd(f, argnums=(0, 3)),
    "hessian": lambda f: jax.hessian(f, argnums=(0, 1)),
    "vmap": lambda f: jax.vmap(f, (0, None, None, None)),
    "vmap of grad": lambda f: jax.jit(jax.vmap(jax.grad(f), (0, None, None, None))),
    "vmap over strengths": lambda f: lambda x, a, b, s: jax.vmap(f, (None, 0, None, 0))(x, jax.numpy.array([a, 0.1]),
                                                                                       b, jax.numpy.array([s, 1.0])),
}  # fmt: skip


@pytest.mark.skipif(jax is None, reason="jax is not installed")
@pytest.mark.parametrize("backend", ["cpu", "reference"])
class TestJax:
    """Transformations, and the memory of a donated step."""

    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_transformations(self, backend: str, name: str) -> None:
        from fused_penalty.jax import prox

        jnp = jax.numpy
        x = jnp.array([[1.0, -2.0, 0.1], [0.3, 0.6, 5.0]])

        def ours(x: Any, l1: Any, l2: Any, step: Any) -> Any:
            return jnp.sum(prox({"a": x}, l1, l2, step=step, backend=backend)["a"] ** 2)

        def plain(x: Any, l1: Any, l2: Any, step: Any) -> Any:
            return jnp.sum((jnp.sign(x) * jnp.maximum(jnp.abs(x) - step * l1, 0) / (1 + 2 * step * l2)) ** 2)

        found, expected = (TRANSFORMS[name](f)(x, 0.5, 0.1, 0.3) for f in (ours, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)

    def test_in_place_where_params_are_donated(self, backend: str) -> None:
        from fused_penalty.jax import prox

        params = {"a": jax.numpy.ones(100_000), "b": jax.numpy.ones((300, 40), "bfloat16")}
        size = sum(x.nbytes for x in params.values())

        def step(p: Any, g: Any) -> Any:
            moved = jax.tree.map(lambda x, d: x - (0.1 * d).astype(x.dtype), p, g)
            return prox(moved, 0.1, 0.2, step=0.1, backend=backend)

        compiled = jax.jit(step, donate_argnums=0).lower(params, params).compile()
        memory = compiled.memory_analysis()
        # the kernel works in place; of the fallback XLA decides, and may hold the model once more
        limit = 1000 + (size if backend == "reference" else 0)
        assert memory.temp_size_in_bytes < limit
        assert memory.alias_size_in_bytes >= size
        alone = jax.jit(lambda p: prox(p, 0.1, backend=backend), donate_argnums=0).lower(params).compile()
        assert alone.memory_analysis().temp_size_in_bytes < limit

    def test_params_that_are_not_donated_stay(self, backend: str) -> None:
        from fused_penalty.jax import prox

        x = jax.numpy.array([1.0, -2.0])
        for f in (lambda v: prox([v], 0.5, backend=backend)[0], jax.jit(lambda v: prox([v], 0.5, backend=backend)[0])):
            assert f(x).tolist() == [0.5, -1.5]
            assert x.tolist() == [1.0, -2.0]
        both = jax.jit(lambda v: (v * 3, prox([v * 2], 0.5, backend=backend)[0], v))(x)
        assert [v.tolist() for v in both] == [[3.0, -6.0], [1.5, -3.5], [1.0, -2.0]]

    @pytest.mark.parametrize("value", [-1.0, np.nan, -np.inf])
    @pytest.mark.parametrize("argument", ["step", "l1"])
    @pytest.mark.parametrize("l2", [0.0, 0.5])
    def test_a_negative_or_nan_array_gives_nan(self, backend: str, value: float, argument: str, l2: float) -> None:
        """Never a number that looks right: a step of -1 with l2 = 0.5 would divide by zero."""
        from fused_penalty.jax import prox

        x, a = jax.numpy.array([1.0, -2.0, 0.0, 0.25]), jax.numpy.ones(4)
        for l1 in (0.0, 0.5):
            given = {"l1": l1, "step": 1.0} | {argument: jax.numpy.float32(value)}
            for anchor in (None, [a]):
                for call in (
                    prox,
                    jax.jit(lambda p, anchor, **kw: prox(p, l2=l2, anchor=anchor, backend=backend, **kw)),
                ):
                    extra = {"l2": l2, "backend": backend} if call is prox else {}
                    (found,) = call([x], anchor=anchor, **given, **extra)
                    assert np.isnan(np.asarray(found)).all()
        (found,) = prox([x], jax.numpy.float32(0), 0.5, step=jax.numpy.float32(0), backend=backend)
        np.testing.assert_array_equal(found, x)
