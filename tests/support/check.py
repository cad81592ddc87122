"""How close is close enough: the contract's bounds (docs/design.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.frontends import ULP


def close_value(found: Any, expected: float, *, wide: bool = False) -> None:
    """1e-6 relative, 1e-13 where float64 leaves make the result float64; overflow and NaN agree."""
    found = np.asarray(found)
    assert found.dtype == (np.float64 if wide else np.float32), found.dtype
    with np.errstate(over="ignore"):
        expected = found.dtype.type(expected) if not np.isfinite(np.float32(expected)) else expected
    # float32 results below the normal range may be flushed or rounded to a few bits
    tiny = 0 if wide else float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(float(found), expected, rtol=1e-13 if wide else 1e-6, atol=tiny)


def close_gradient(found: Any, expected: np.ndarray, dtype: str, scale: np.ndarray | None = None) -> None:
    """Computed in float32 or wider and rounded once: within one ulp of a 16-bit dtype. In float32 and float64 the
    arithmetic itself rounds five times (the difference, two strengths, a product, a sum): two ulp.

    `scale`: the magnitude of the terms where the result is a difference of them, which may cancel.
    """
    found = np.asarray(found)
    assert found.dtype.name == dtype
    assert found.shape == expected.shape
    with np.errstate(over="ignore"):
        expected = expected.astype(found.dtype).astype(np.float64)  # inf where the dtype ends
    smallest = {"float16": 6e-8, "bfloat16": 1e-37, "float32": 1e-37, "float64": 0}[dtype]
    bound = ULP[dtype] * (1 if found.itemsize == 2 else 2)
    found = found.astype(np.float64)
    if scale is None:
        np.testing.assert_allclose(found, expected, rtol=bound, atol=smallest)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    # the terms cancel in the compute type; the result is then rounded once
    cancelled = 2 * ULP["float64" if dtype == "float64" else "float32"] * scale[finite]
    allowed = bound * np.abs(expected[finite]) + cancelled + smallest
    np.testing.assert_array_less(np.abs(found[finite] - expected[finite]) - allowed, np.finfo(np.float64).tiny)
