"""The norm of a whole tree, orders 1, 2 and inf, on every backend, against math.fsum and NumPy."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support import edges, oracle
from tests.support.check import close_value
from tests.support.frontends import DTYPES, Frontend

ORDERS = (1, 2, math.inf)


def truth(leaves: list[np.ndarray], order: float) -> float:
    flat = [oracle.displacement(x).ravel() for x in leaves]
    every = np.abs(np.concatenate([*flat, np.zeros(1)]))
    if order == math.inf:
        return float(np.max(every))
    return oracle.exact_sum(every) if order == 1 else math.sqrt(oracle.exact_sum(every * every))


def run(frontend: Frontend, tree: Any, order: float) -> np.ndarray:
    with frontend.scope(tree):
        return frontend.back(frontend.verbs.global_norm(frontend.to(tree), order, backend=frontend.backend))


@pytest.mark.parametrize("order", ORDERS)
def test_every_edge_case_and_all_of_them(frontend: Frontend, dtype: str, order: float) -> None:
    tree = dict(edges.edge_leaves(DTYPES[dtype], frontend.chunk))
    lists = [[x] for x in tree.values()]
    every = list(tree.values())
    if frontend.framework == "jax":  # which compiles anew for each list, and long for many leaves; its sums are float32
        lists = [[tree[name]] for name in ("shape()", "size0", "zeros")]
        every = [x for name, x in tree.items() if not name.startswith("size") and oracle.sums(x)[1] < 1e37]
    for leaves in (*lists, every):
        close_value(run(frontend, leaves, order), truth(leaves, order), wide=dtype == "float64")


@pytest.mark.parametrize("order", ORDERS)
def test_mixed_dtypes(frontend: Frontend, order: float) -> None:
    rng = np.random.default_rng(7)
    for names in (("float16", "bfloat16", "float32"), tuple(DTYPES)):
        leaves = [rng.standard_normal((50, 41)).astype(DTYPES[n]) for n in names]
        found = run(frontend, leaves, order)
        assert found.dtype == ("float64" if "float64" in names else "float32")
        np.testing.assert_allclose(found, truth(leaves, order), rtol=1e-6)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bits(frontend: Frontend, name: str) -> None:
    leaf = np.random.default_rng(8).standard_normal(1000).astype(getattr(ml_dtypes, name))
    if frontend.framework == "jax":
        x = frontend.to(leaf)
    else:
        import torch

        x = torch.from_numpy(leaf.view(np.uint8)).view(getattr(torch, name)).to(frontend.device)
    for order in ORDERS:
        found = frontend.verbs.global_norm([x], order, backend=frontend.backend)
        np.testing.assert_allclose(frontend.back(found), truth([leaf], order), rtol=2e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "values", [[1, math.inf, -2], [1, -math.inf], [math.nan, 1], [math.inf, math.nan], [0.0, -0.0]]
)
def test_what_is_not_finite_is_not_lost(frontend: Frontend, dtype: str, values: list[float], order: float) -> None:
    leaves = [np.ones(3, DTYPES[dtype]), np.array(values).astype(DTYPES[dtype]), np.ones(40, DTYPES[dtype])]
    np.testing.assert_allclose(run(frontend, leaves, order), truth(leaves, order), rtol=1e-6)


def test_a_norm_whose_square_is_beyond_float32(frontend: Frontend) -> None:
    """Each square is a float32, their sum is not. JAX's sums leave the launch as float32."""
    leaves = [np.full(300, 1.5e19, np.float32), np.full((7, 5), -1.5e19, np.float32)]
    expected = truth(leaves, 2)
    assert expected**2 > float(np.finfo(np.float32).max) > 1.5e19**2
    if frontend.framework == "jax":
        assert run(frontend, leaves, 2) == math.inf
    else:
        close_value(run(frontend, leaves, 2), expected)
    close_value(run(frontend, leaves, 1), truth(leaves, 1))


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_zero(frontend: Frontend, order: float) -> None:
    for tree in ([], {}, [None], {"a": None}, [np.zeros((0, 3), np.float32)]):
        made = frontend.to(tree) if tree and not any(x is None for x in [*tree]) and tree != {"a": None} else tree
        found = frontend.verbs.global_norm(made, order, backend=frontend.backend)
        assert (frontend.back(found).item(), frontend.back(found).dtype) == (0.0, np.float32)


def test_none_is_left_out(frontend: Frontend) -> None:
    a, b = frontend.to(np.float32([3.0])), frontend.to(np.float32([-4.0]))
    for tree in ([a, None, b], {"a": a, "none": None, "b": {"c": b, "d": None}}):
        assert float(frontend.verbs.global_norm(tree, backend=frontend.backend)) == 5.0


@pytest.mark.parametrize("order", [0, 3, -1, 0.5, -math.inf, math.nan])
def test_other_orders_are_refused(frontend: Frontend, order: float) -> None:
    with pytest.raises(ValueError, match=r"^ord: .* is not an order that has a kernel\. Use 1, 2 or float\('inf'\)"):
        frontend.verbs.global_norm(frontend.to([np.ones(2, np.float32)]), order)


@pytest.mark.parametrize("order", ["fro", None, True, 2j])
def test_what_is_no_number_is_refused(frontend: Frontend, order: Any) -> None:
    with pytest.raises(TypeError, match=r"^ord: .* is not an order"):
        frontend.verbs.global_norm(frontend.to([np.ones(2, np.float32)]), order)


# Derivatives


def slopes(frontend: Any, leaves: list[np.ndarray], order: float) -> list[np.ndarray]:
    with frontend.scope(leaves):
        norm = frontend.verbs.global_norm
        if frontend.framework == "jax":
            found = frontend.jax.grad(lambda p: norm(p, order, backend=frontend.backend))(frontend.to(leaves))
            return frontend.map(found)
        xs = [x.requires_grad_() for x in frontend.to(leaves)]
        norm(xs, order, backend=frontend.backend).backward()
        return [frontend.back(x.grad) for x in xs]


def test_derivatives(frontend: Frontend, dtype: str) -> None:
    rng = np.random.default_rng(9)
    leaves = [rng.standard_normal(s).astype(DTYPES[dtype]) for s in ((3, 4), (), (5,))]
    leaves[0][0, 0] = 0
    bound = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 1e-6, "float64": 1e-13}[dtype]
    for order, formula in ((1, np.sign), (2, lambda d: d / truth(leaves, 2))):
        for found, x in zip(slopes(frontend, leaves, order), leaves, strict=True):
            assert found.dtype == x.dtype
            np.testing.assert_allclose(found.astype(np.float64), formula(x.astype(np.float64)), rtol=bound)


@pytest.mark.parametrize("order", [1, 2])
def test_the_derivative_is_zero_where_all_is_zero(frontend: Frontend, order: float) -> None:
    """A subgradient, as torch.linalg.vector_norm and optax.safe_norm have it; a plain root gives NaN."""
    for found in slopes(frontend, [np.zeros(3, np.float32), np.float32([0.0, -0.0])], order):
        np.testing.assert_array_equal(found, np.zeros(found.shape))


def test_an_infinite_element_has_slope_one_in_order_1(frontend: Frontend) -> None:
    (found,) = slopes(frontend, [np.float32([math.inf, -2.0, 0.0])], 1)
    np.testing.assert_array_equal(found, [1, -1, 0])
