"""Leaves of 8 bits, as checkpoints have them: read by penalty, sums and stats, refused where they would be written."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support.frontends import Frontend

DTYPES = {"float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}
WRITING = ("penalty_and_grad", "add_grad_", "prox_", "regularize_", "prox")


def every(dtype: str) -> np.ndarray:
    """Each of the 256 numbers of eight bits, subnormals, inf and NaN among them."""
    return np.arange(256, dtype=np.uint8).view(DTYPES[dtype])


def leaf(frontend: Frontend, x: np.ndarray) -> Any:
    if frontend.framework == "jax":
        import jax.numpy as jnp

        return jnp.asarray(x)
    import torch

    return torch.from_numpy(x.view(np.uint8).copy()).view(getattr(torch, x.dtype.name)).to(frontend.device)


def run(frontend: Frontend, verb: str, tree: Any, *args: Any, **kw: Any) -> Any:
    return getattr(frontend.verbs, verb)(tree, *args, backend=frontend.backend, **kw)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_read_right(frontend: Frontend, dtype: str) -> None:
    """A leaf for each number: what is wrong with one is not lost in a sum."""
    numbers = every(dtype)
    s = run(frontend, "stats", [leaf(frontend, numbers[i : i + 1]) for i in range(256)])
    exact = numbers.astype(np.float64)
    finite = np.isfinite(exact)
    for name, expected in (("abs", abs(exact)), ("square", exact * exact), ("max", abs(exact))):
        np.testing.assert_array_equal(frontend.back(getattr(s, name))[finite], expected[finite], err_msg=name)
        assert not np.isfinite(frontend.back(getattr(s, name))[~finite]).any(), name
    np.testing.assert_array_equal(frontend.back(s.zeros), exact == 0)
    np.testing.assert_array_equal(frontend.back(s.nonfinite), ~finite)


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_any_length_beside_other_dtypes(frontend: Frontend, dtype: str, anchored: bool) -> None:
    rng = np.random.default_rng(0)
    sizes = (0, 1, 7, 16, 33, 255, 4097, frontend.chunk + 17)

    def leaves() -> list[np.ndarray]:
        narrow = [rng.standard_normal(n).astype(DTYPES[dtype]) for n in sizes]
        return [*narrow, rng.standard_normal(100).astype(np.float32), rng.standard_normal(99).astype(np.float16)]

    xs, anchors = leaves(), leaves()
    kw = {"anchor": [leaf(frontend, a) for a in anchors]} if anchored else {}
    tree = [leaf(frontend, x) for x in xs]
    ds = [x.astype(np.float64) - (a.astype(np.float64) if anchored else 0) for x, a in zip(xs, anchors, strict=True)]
    found = run(frontend, "sums", tree, **kw)
    np.testing.assert_allclose(frontend.back(found.abs), [abs(d).sum() for d in ds], rtol=2e-6)
    np.testing.assert_allclose(frontend.back(found.square), [(d * d).sum() for d in ds], rtol=2e-6)
    value = run(frontend, "penalty", tree, 0.1, 0.2, **kw)
    expected = sum(0.1 * abs(d).sum() + 0.2 * (d * d).sum() for d in ds)
    np.testing.assert_allclose(frontend.back(value), expected, rtol=2e-6)


@pytest.mark.parametrize("verb", WRITING)
def test_what_writes_refuses_them_by_name(frontend: Frontend, verb: str) -> None:
    if not hasattr(frontend.verbs, verb):
        pytest.skip(f"{frontend.framework} has no {verb}")
    tree = {"w": leaf(frontend, np.ones(3, np.float32)), "q": leaf(frontend, every("float8_e5m2"))}
    if verb == "add_grad_":
        for x in tree.values():
            x.grad = frontend.torch.zeros_like(x)  # type: ignore[attr-defined]
    with pytest.raises(TypeError) as found:
        run(frontend, verb, tree, 0.1)
    assert "float8_e5m2 is only read" in str(found.value)
    assert "'q'" in str(found.value)
    assert "float16, bfloat16, float32 or float64" in str(found.value)


@pytest.mark.parametrize("verb", ["prox_", "prox"])
def test_one_that_is_left_out_stands_beside_written_ones(frontend: Frontend, verb: str) -> None:
    if not hasattr(frontend.verbs, verb):
        pytest.skip(f"{frontend.framework} has no {verb}")
    tree = {"q": leaf(frontend, every("float8_e5m2")), "w": leaf(frontend, np.ones(3, np.float32))}
    found = run(frontend, verb, tree, 0.25, mask={"q": False, "w": True})
    new = tree if verb == "prox_" else found
    assert frontend.back(new["w"]).tolist() == [0.75] * 3
