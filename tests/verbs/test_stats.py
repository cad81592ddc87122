"""Σ|x|, Σx², max|x|, zeros and non-finite numbers of each leaf, on every backend, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support import edges, oracle
from tests.support.check import close_value
from tests.support.frontends import DTYPES, Frontend


def run(frontend: Frontend, tree: Any, **kw: Any) -> tuple[list[Any], tuple[int, ...], tuple[str, ...]]:
    """The arrays as NumPy, sizes and paths."""
    with frontend.scope(tree):
        kw = {k: frontend.to(v) for k, v in kw.items()}
        found = frontend.verbs.stats(frontend.to(tree), backend=frontend.backend, **kw)
        return [frontend.back(v) for v in found[:5]], found.size, found.paths


def same(found: list[Any], i: int, expected: tuple[Any, ...], wide: bool) -> None:
    close_value(found[0][i], expected[0], wide=wide)
    close_value(found[1][i], expected[1], wide=wide)
    np.testing.assert_allclose(found[2][i], expected[2], rtol=2.0**-23)
    assert (int(found[3][i]), int(found[4][i])) == expected[3:]
    assert np.issubdtype(found[3].dtype, np.integer)


def test_every_edge_case(frontend: Frontend, dtype: str) -> None:
    tree = dict(edges.edge_leaves(DTYPES[dtype], frontend.chunk))
    found, size, paths = run(frontend, tree)
    assert set(paths) == set(tree)
    for i, path in enumerate(paths):
        same(found, i, oracle.stats(tree[path]), dtype == "float64")
        assert size[i] == tree[path].size


def test_zeros_and_non_finite_anywhere(frontend: Frontend, dtype: str) -> None:
    rng = np.random.default_rng(4)
    tree = {}
    for n in (1, 31, 1025, frontend.chunk + 3):
        leaf = rng.standard_normal(n)
        leaf[rng.random(n) < 0.3] = 0.0
        leaf[0] = -0.0
        tree[f"plain{n}"] = leaf.astype(DTYPES[dtype])
        leaf[rng.random(n) < 0.01] = np.inf
        leaf[-1] = -np.inf
        tree[f"inf{n}"] = leaf.astype(DTYPES[dtype])
        leaf[n // 2] = np.nan
        tree[f"nan{n}"] = leaf.astype(DTYPES[dtype])
    found, _, paths = run(frontend, tree)
    for i, path in enumerate(paths):
        same(found, i, oracle.stats(tree[path]), dtype == "float64")


def test_of_the_difference_to_an_anchor(frontend: Frontend) -> None:
    rng = np.random.default_rng(5)
    tree = {n: np.round(rng.standard_normal(700), 1).astype(d) for n, d in DTYPES.items()}
    anchor = {n: np.round(rng.standard_normal(700), 1).astype(x.dtype) for n, x in tree.items()}
    found, _, paths = run(frontend, tree, anchor=anchor)
    for i, path in enumerate(paths):
        expected = oracle.stats(tree[path], anchor[path])
        np.testing.assert_allclose([v[i] for v in found[:3]], expected[:3], rtol=1e-6)
        # d is taken in the compute type, where float32 differences of float32 numbers may round, but not to zero
        assert (int(found[3][i]), int(found[4][i])) == expected[3:]


def test_nothing_selected(frontend: Frontend) -> None:
    found = frontend.verbs.stats(frontend.to({"a": np.ones(3, np.float32)}), mask=False, backend=frontend.backend)
    assert [frontend.back(v).shape for v in found[:5]] == [(0,)] * 5
    assert (found.size, found.paths) == ((), ())


def test_counts_beyond_float32(frontend: Frontend) -> None:
    """2²⁴ + 3 zeros: float32 has no such number."""
    if frontend.backend == "triton" and frontend.device == "cpu":
        pytest.skip("Triton's interpreter would take minutes for 17 million elements")
    found, _, _ = run(frontend, [np.zeros(2**24 + 3, np.float16)])
    assert int(found[3][0]) == 2**24 + 3


class TestJax:
    jax = pytest.importorskip("jax")

    @pytest.mark.parametrize("backend", ["cpu", "reference"])
    def test_transformations(self, backend: str) -> None:
        from fused_penalty.jax import stats

        jax, jnp = self.jax, self.jax.numpy
        rows = jnp.array([[1.0, 0.0, -3.0], [0.0, 0.0, jnp.nan]])
        found = jax.vmap(lambda x: stats({"a": x, "b": jnp.zeros(4)}, backend=backend)[:5])(rows)
        np.testing.assert_array_equal(found[2], [[3, 0], [np.nan, 0]])
        np.testing.assert_array_equal(found[3], [[1, 4], [2, 4]])
        np.testing.assert_array_equal(found[4], [[0, 0], [1, 0]])
        slope = jax.jit(jax.grad(lambda x: jnp.sum(stats([x], backend=backend).max) + jnp.sum(x)))(jnp.ones(3))
        np.testing.assert_array_equal(slope, np.ones(3))

    def test_a_dropped_value_compiles(self) -> None:
        """The sums are computed by nobody then; the reference backend's reduction once crashed the compiler."""
        from tests.support.fresh import run_fresh

        code = """
        import os; os.environ["JAX_PLATFORMS"] = "cpu"
        import jax, jax.numpy as jnp
        from fused_penalty.jax import penalty_and_grad
        params = {"a": jnp.ones(1024), "b": jnp.ones((3, 4), jnp.bfloat16)}
        print(jax.jit(lambda p: penalty_and_grad(p, 0.5, backend="reference")[1])(params)["a"][0])
        """
        assert run_fresh(code) == "0.5"
