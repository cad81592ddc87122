"""Random trees: dtypes, shapes of rank 0 to 5, values over the contract's range, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support import edges, oracle
from tests.support.check import close_gradient, close_value
from tests.support.frontends import DTYPES, Frontend

SETTINGS = settings(
    # Triton's interpreter is slow, and test_values.py has every size at which the kernel changes its way.
    max_examples=8 if edges.INTERPRETED else 25,
    deadline=None,
    derandomize=True,  # CI must not fail on a Tuesday
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def magnitudes(dtype: str) -> st.SearchStrategy[float]:
    """0 or 1e-18 ... 1e18 of either sign; float16 has less."""
    low, high = (1e-4, 6e4) if dtype == "float16" else (1e-18, 1e18)
    positive = st.floats(low, high, width=64)
    return st.one_of(st.just(0.0), st.just(-0.0), positive, positive.map(lambda v: -v))


@st.composite
def leaf(draw: st.DrawFn, dtypes: list[str]) -> np.ndarray:
    name = draw(st.sampled_from(dtypes))
    shape = draw(
        st.one_of(
            hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
            st.sampled_from(edges.SIZES).map(lambda n: (n,)),
        )
    )
    pool = np.array(draw(st.lists(magnitudes(name), min_size=1, max_size=20)))
    values = np.resize(pool, int(np.prod(shape))).reshape(shape)
    return values.astype(DTYPES[name])


Strength = st.one_of(st.just(0.0), st.floats(1e-6, 10.0))


def fits_float32(*values: float) -> bool:
    """The result is float32: beyond its range it is inf, below it is flushed (docs/design.md)."""
    return all(v == 0 or 1e-36 < abs(v) < 1e38 for v in values)


@pytest.mark.parametrize("dtypes", [["float16", "bfloat16", "float32"], ["float64"]], ids=["narrow", "wide"])
@given(data=st.data())
@SETTINGS
def test_penalty_and_gradient(frontend: Frontend, dtypes: list[str], data: st.DataObject) -> None:
    tree = data.draw(st.lists(leaf(dtypes), max_size=5))
    l1 = [data.draw(Strength) for _ in tree]
    l2 = [data.draw(Strength) for _ in tree]
    wide = dtypes == ["float64"] and bool(tree)
    with frontend.scope(tree):
        params = frontend.to(tree)
        value, grads = frontend.verbs.penalty_and_grad(params, l1, l2, backend=frontend.backend)
        value, grads = frontend.back(value), frontend.map(grads)
        same = frontend.back(frontend.verbs.penalty(params, l1, l2, backend=frontend.backend))
    expected = oracle.penalty(tree, l1, l2)
    parts = [v for x in tree for v in oracle.sums(x)] + [
        a * b for x in tree for a, b in zip((max(l1), max(l2)), oracle.sums(x), strict=True)
    ]
    if wide or fits_float32(expected, *parts):
        close_value(value, expected, wide=wide)
        close_value(same, expected, wide=wide)
    for x, g, a, b in zip(tree, grads, l1, l2, strict=True):
        close_gradient(g, oracle.gradient(x, a, b), x.dtype.name)


@given(data=st.data())
@SETTINGS
def test_masks_and_orders_of_leaves_change_nothing_else(frontend: Frontend, data: st.DataObject) -> None:
    """The penalty of a mask is that of the leaves that are left; sums are those of each leaf alone."""
    tree = data.draw(st.lists(leaf(["float32", "bfloat16"]), min_size=1, max_size=6))
    mask = [data.draw(st.booleans()) for _ in tree]
    params = frontend.to(tree)
    masked = frontend.verbs.sums(params, mask=mask, backend=frontend.backend)
    kept = [x for x, keep in zip(params, mask, strict=True) if keep]
    assert masked.paths == tuple(str(i) for i, keep in enumerate(mask) if keep)
    alone = [frontend.verbs.sums([x], backend=frontend.backend) for x in kept]
    np.testing.assert_array_equal(frontend.back(masked.abs), [float(s.abs[0]) for s in alone])
    np.testing.assert_array_equal(frontend.back(masked.square), [float(s.square[0]) for s in alone])
    np.testing.assert_array_equal(
        frontend.back(frontend.verbs.penalty(params, 0.1, 0.2, mask=mask, backend=frontend.backend)),
        frontend.back(frontend.verbs.penalty(kept, 0.1, 0.2, backend=frontend.backend)),
    )
