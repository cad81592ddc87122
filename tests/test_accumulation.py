"""The worst case of the accumulation, and the range of its squares.

A float32 accumulator takes 16 numbers (`kRun` of kernels/elastic_net.h). The first is added to 0, which is exact. If it
is large and the others are just below half a unit of its last place, each of the other 15 is lost: 15·2^-24 = 8.9e-7.
A square that is itself rounded adds 2^-24, a result in float32 another 2^-24.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracle
from frontends import DTYPES, Frontend, params

UNIT = 2.0**-24
# Elements in a row: 32 lanes on the CPU; 256 threads with 4 or 8 elements each on a GPU; JAX's reference cuts the leaf
# into as many rows as numbers are added up.
ROWS = (32, 512, 1024, 2048)


def adversarial(dtype: np.dtype, first: float, others: float, run: int, row: int) -> np.ndarray:
    """An accumulator of rows of `row` elements gets `first`, then `others`, and after `run` numbers the same again."""
    x = np.full((max(1, 16_384 // (run * row)), run, row), others)
    x[:, 0] = first
    return x.ravel().astype(dtype)


def sums(frontend: Frontend, x: np.ndarray) -> tuple[float, float, bool]:
    """Σ|x|, Σx², and whether they come in float64."""
    found = frontend.verbs.sums(frontend.to([x]), backend=frontend.backend)
    absolute, square = frontend.back(found.abs), frontend.back(found.square)
    return float(absolute[0]), float(square[0]), absolute.dtype == np.float64


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("run", [16, 32])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_worst_order(frontend: Frontend, dtype: str, run: int, row: int) -> None:
    for k, others in enumerate((UNIT * 1.001, UNIT * 0.999, 2.0**-12 * 0.9995)):
        x = adversarial(DTYPES[dtype], 1.0, others, run, row)
        absolute, square, wide = sums(frontend, x)
        bound = (15 if wide else 16) * UNIT
        expected = oracle.sums(x)
        assert absolute == pytest.approx(expected[0], rel=bound), k
        assert square == pytest.approx(expected[1], rel=bound), k


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("run", [16, 32])
def test_the_worst_squares(frontend: Frontend, run: int, row: int) -> None:
    """(1 + 2^-12)² loses 2^-24 by itself."""
    x = adversarial(DTYPES["float32"], 1 + 2.0**-12, 2.0**-12 * 0.9998, run, row)
    _, square, wide = sums(frontend, x)
    assert square == pytest.approx(oracle.sums(x)[1], rel=(16 if wide else 17) * UNIT)


def test_the_tests_reach_the_bound() -> None:
    """Added up one after the other, they are as bad as said: the bounds above are not loose."""

    def error(x: np.ndarray) -> float:
        total = np.float32(0)
        for v in x.astype(np.float32):
            total = np.float32(total + v)
        return abs(float(total) / oracle.exact_sum(x) - 1)

    ones = adversarial(DTYPES["float32"], 1.0, UNIT * 0.999, 16, 1)[:16]
    assert 14.9 * UNIT < error(ones) < 15 * UNIT
    double = adversarial(DTYPES["float32"], 1.0, UNIT * 0.999, 32, 1)[:32]
    assert error(double) > 1.8e-6  # what 32 in a row would give
    square = adversarial(DTYPES["float64"], 1 + 2.0**-12, 2.0**-12 * 0.9998, 16, 1)[:16] ** 2
    assert 15.8 * UNIT < error(square) < 16 * UNIT


LARGE = (1.5e19, 1.8e19, -1.84e19)  # squares of up to 3.39e38: float32 ends at 3.40e38


def of_size(frontend: Frontend, dtype: str, value: float, n: int) -> tuple[np.ndarray, Any]:
    x = np.full(n, value).astype(DTYPES[dtype])
    return x, frontend.to([x])


@pytest.mark.parametrize("value", LARGE)
@pytest.mark.parametrize("n", [33, 3300, 70_001])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_large_squares(frontend: Frontend, dtype: str, n: int, value: float) -> None:
    """Wherever float32 holds each square, the sums are right: they leave float32 only at the end, if at all."""
    x, leaves = of_size(frontend, dtype, value, n)
    _, square, wide = sums(frontend, x)
    expected = oracle.sums(x)[1]
    assert square == (pytest.approx(expected, rel=1e-6) if wide else np.inf)
    if frontend.framework == "torch":
        value_of_penalty = frontend.verbs.penalty(leaves, 0.0, 1e-30, backend=frontend.backend)
        assert float(value_of_penalty) == pytest.approx(1e-30 * expected, rel=1e-6)


@pytest.mark.parametrize("frontend", [*params("torch")], indirect=True)
@pytest.mark.parametrize("verb", ["prox_", "regularize_", "add_grad_", "penalty_and_grad"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_large_squares_of_every_verb(frontend: Any, verb: str, dtype: str) -> None:
    """Those that write over what they read have no second look at it."""
    x, leaves = of_size(frontend, dtype, LARGE[0], 3300)
    if verb == "add_grad_":
        leaves[0].grad = frontend.torch.zeros_like(leaves[0])
    result = getattr(frontend.verbs, verb)(leaves, 0.0, 1e-30, backend=frontend.backend)
    value = result[0] if verb == "penalty_and_grad" else result
    assert float(value) == pytest.approx(1e-30 * oracle.sums(x)[1], rel=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_real_infinity_stays(frontend: Frontend, dtype: str) -> None:
    x, _ = of_size(frontend, dtype, 1.5e19, 3300)
    x[7] = np.inf
    assert sums(frontend, x)[:2] == (np.inf, np.inf)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_small_squares(frontend: Frontend, dtype: str) -> None:
    """The lower end of the range that the contract states."""
    x, _ = of_size(frontend, dtype, 1e-18, 3300)
    absolute, square, _ = sums(frontend, x)
    assert (absolute, square) == pytest.approx(oracle.sums(x), rel=1e-6)
