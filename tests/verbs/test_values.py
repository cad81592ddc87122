"""Value, sums and gradient of every edge case, on every backend, against float64."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from benchmarks.models import trees
from tests.support import edges, oracle
from tests.support.check import close_gradient, close_value
from tests.support.frontends import DTYPES, Frontend

L1, L2 = 0.01, 0.003


@functools.cache
def edge_cases(dtype: str, chunk: int) -> dict[str, np.ndarray]:
    return dict(edges.edge_leaves(DTYPES[dtype], chunk))


def test_sums_of_every_edge_case(frontend: Frontend, dtype: str) -> None:
    tree, wide = edge_cases(dtype, frontend.chunk), dtype == "float64"
    with frontend.scope(tree):
        found = frontend.verbs.sums(frontend.to(tree), backend=frontend.backend)
        absolute, square = frontend.back(found.abs), frontend.back(found.square)
    assert set(found.paths) == set(tree)
    for path, a, s in zip(found.paths, absolute, square, strict=True):
        expected = oracle.sums(tree[path])
        close_value(a, expected[0], wide=wide)
        close_value(s, expected[1], wide=wide)


def test_gradient_of_every_edge_case(frontend: Frontend, dtype: str) -> None:
    tree = edge_cases(dtype, frontend.chunk)
    with frontend.scope(tree):
        params = frontend.to(tree)
        value, fused = frontend.verbs.penalty_and_grad(params, L1, L2, backend=frontend.backend)
        by_autodiff = frontend.map(frontend.autodiff(params, L1, L2))
        value, fused = frontend.back(value), frontend.map(fused)
        same = frontend.back(frontend.verbs.penalty(params, L1, L2, backend=frontend.backend))
    close_value(value, float(same), wide=dtype == "float64")
    for path, leaf in tree.items():
        expected = oracle.gradient(leaf, L1, L2)
        close_gradient(fused[path], expected, dtype)
        close_gradient(by_autodiff[path], expected, dtype)


@pytest.mark.parametrize("case", ["plain", "anchor"])
def test_penalty_of_mixed_dtypes(frontend: Frontend, case: str) -> None:
    rng = np.random.default_rng(3)
    tree = {n: rng.standard_normal((50, 41)).astype(d) for n, d in DTYPES.items()}
    anchor = {n: rng.standard_normal(x.shape).astype(x.dtype) for n, x in tree.items()} if case == "anchor" else None
    with frontend.scope(tree):
        kw = {} if anchor is None else {"anchor": frontend.to(anchor)}
        params = frontend.to(tree)
        value, grads = frontend.verbs.penalty_and_grad(params, L1, L2, backend=frontend.backend, **kw)
        diff = frontend.map(frontend.autodiff(params, L1, L2, **kw))
        same = frontend.back(frontend.verbs.penalty(params, L1, L2, backend=frontend.backend, **kw))
        value, grads = frontend.back(value), frontend.map(grads)
    anchors = None if anchor is None else list(anchor.values())
    expected = oracle.penalty(list(tree.values()), [L1] * 4, [L2] * 4, anchors)
    for found in (value, same):  # the float16 leaf makes it float32-accurate, float64 only in type
        assert found.dtype == np.float64
        np.testing.assert_allclose(float(found), expected, rtol=1e-6)
    for name, x in tree.items():
        exact = oracle.gradient(x, L1, L2, None if anchor is None else anchor[name])
        close_gradient(grads[name], exact, name)
        close_gradient(diff[name], exact, name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_passes_through(frontend: Frontend, dtype: str, value: float) -> None:
    for n, at in ((1, 0), (33, 32), (frontend.chunk + 5, frontend.chunk + 1)):
        leaf = np.ones(n, DTYPES[dtype])
        leaf[at] = value
        with frontend.scope([leaf]):
            params = frontend.to([leaf])
            s = frontend.verbs.sums(params, backend=frontend.backend)
            found = [float(frontend.back(v)[0]) for v in (s.abs, s.square)]
            _, (fused,) = frontend.verbs.penalty_and_grad(params, L1, L2, backend=frontend.backend)
            _, (only_l1,) = frontend.verbs.penalty_and_grad(params, L1, 0.0, backend=frontend.backend)
            (diff,) = frontend.autodiff(params, L1, L2)
            got = [frontend.back(g)[at] for g in (fused, diff)]
            sign = float(frontend.back(only_l1)[at])
        expected = np.nan if np.isnan(value) else np.inf
        np.testing.assert_equal(found, [expected] * 2)
        np.testing.assert_equal([float(g) for g in got], [value, value])
        np.testing.assert_allclose(sign, np.sign(value) * L1, rtol=1e-2)


def test_zero_strength_removes_its_term(frontend: Frontend) -> None:
    leaf = np.array([np.inf, 1.0, -2.0], np.float32)
    params = frontend.to([leaf])
    run = frontend.verbs.penalty_and_grad
    assert float(run(params, 0.0, 0.0, backend=frontend.backend)[0]) == 0.0
    large = frontend.to([np.array([1e30, -1e30, 1.0], np.float32)])  # the squares overflow float32
    value, (grad,) = run(large, 0.5, 0.0, backend=frontend.backend)
    np.testing.assert_allclose(float(value), 1e30, rtol=1e-6)
    np.testing.assert_array_equal(frontend.back(grad), np.float32([0.5, -0.5, 0.5]))
    # a static zero removes the term from the gradient too: 0 * inf would be NaN
    _, (grad,) = run(params, 0.25, 0.0, backend=frontend.backend)
    np.testing.assert_array_equal(frontend.back(grad), np.float32([0.25, 0.25, -0.25]))
    (diff,) = frontend.autodiff(params, 0.25, 0.0)
    np.testing.assert_array_equal(frontend.back(diff), np.float32([0.25, 0.25, -0.25]))


def test_gradient_at_zero_is_zero(frontend: Frontend, dtype: str) -> None:
    leaf = np.array([0.0, -0.0, 1.0, -1.0], DTYPES[dtype])
    with frontend.scope([leaf]):
        params = frontend.to([leaf])
        _, (fused,) = frontend.verbs.penalty_and_grad(params, 1.0, 0.0, backend=frontend.backend)
        (diff,) = frontend.autodiff(params, 1.0, 0.0)
        for g in (fused, diff):
            np.testing.assert_array_equal(frontend.back(g).astype(np.float64), [0, 0, 1, -1])


def test_empty_trees_and_leaves(frontend: Frontend) -> None:
    for tree in ([], {}, [np.zeros((0, 3), np.float32)]):
        params = frontend.to(tree)
        assert float(frontend.verbs.penalty(params, 1.0, 1.0, backend=frontend.backend)) == 0.0
        value, grads = frontend.verbs.penalty_and_grad(params, 1.0, 1.0, backend=frontend.backend)
        assert float(value) == 0.0
        assert len(grads) == len(tree)
        assert len(frontend.verbs.sums(params, backend=frontend.backend).paths) == len(tree)


def test_many_leaves_of_one_value(frontend: Frontend) -> None:
    """Equal terms are where a float32 running sum over leaves drifts."""
    tree = [np.full(7, 0.1, np.float32) for _ in range(700)]
    strengths = [1e-3 * (1 + i / 700) for i in range(700)]
    params = frontend.to(tree)
    one = frontend.verbs.penalty(params, 1e-3, 2e-3, backend=frontend.backend)
    close_value(frontend.back(one), oracle.penalty(tree, [1e-3] * 700, [2e-3] * 700))
    each = frontend.verbs.penalty(params, strengths, 2e-3, backend=frontend.backend)
    close_value(frontend.back(each), oracle.penalty(tree, strengths, [2e-3] * 700))


@pytest.mark.parametrize("name", ["gpt2", "resnet50"])
def test_real_model_shapes(frontend: Frontend, name: str) -> None:
    tree = trees.arrays(trees.MODELS[name])
    absolute = sum(float(np.sum(np.abs(x), dtype=np.float64)) for x in tree.values())
    square = sum(float(np.sum(np.square(x, dtype=np.float64))) for x in tree.values())
    value = frontend.verbs.penalty(frontend.to(tree), 1e-5, 1e-4, backend=frontend.backend)
    close_value(frontend.back(value), 1e-5 * absolute + 1e-4 * square)
