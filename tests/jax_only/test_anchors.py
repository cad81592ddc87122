"""Random lists of leaves with anchors, in every dtype and in every layout that reaches JAX, against float64.

JAX's arrays have one layout to the eye; what arrives at a custom call can be transposed, sliced or reversed inside jit,
and NumPy's arrays come in any order. Few signatures, since each is compiled; the data varies.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
from fused_penalty.jax import penalty, penalty_and_grad, prox, stats, sums
from tests.support import oracle
from tests.support.check import close_gradient
from tests.support.frontends import DTYPES

L1, L2, STEP = 0.3, 0.2, 0.5
LISTS = 20  # of each signature
Array = Any

# Layout: how an array is laid out as what the call sees of it (NumPy and JAX alike).
LAYOUTS: dict[str, Any] = {
    "whole": lambda x: x,
    "transposed": lambda x: x.T,
    "sliced": lambda x: x[1:-1, ::2],
    "reversed": lambda x: x[::-1, ::-1],
    "row": lambda x: x[1],
    "moved": lambda x: x.reshape(x.shape[0], 2, -1).transpose(1, 2, 0),
    "expanded": lambda x: x[:, :1] + 0 * x,
}
# Signature: (dtype, shape of the memory, layout of the leaf, layout of the anchor) of each leaf.
SIGNATURES: dict[str, list[tuple[str, tuple[int, ...], str, str]]] = {
    "mixed": [
        ("float32", (6, 10), "transposed", "transposed"),
        ("float16", (9, 14), "sliced", "sliced"),
        ("bfloat16", (4, 6), "moved", "moved"),
    ],
    "opposed": [
        ("float32", (12, 12), "whole", "transposed"),
        ("bfloat16", (7, 7), "transposed", "reversed"),
        ("float16", (8, 8), "reversed", "whole"),
    ],
    "small": [("float32", (3, 1), "row", "row"), ("float16", (2, 4), "expanded", "whole")],
    "large": [("float32", (300, 260), "transposed", "transposed"), ("bfloat16", (90, 400), "sliced", "sliced")],
    "wide": [
        ("float64", (5, 8), "transposed", "transposed"),
        ("float32", (6, 6), "whole", "transposed"),
        ("float16", (5, 6), "moved", "moved"),
    ],
}


def draw(signature: str, seed: int) -> tuple[list[Array], list[Array]]:
    """The memory of leaves and anchors; here and there an anchor is its leaf, and a value is large or small."""
    rng = np.random.default_rng([seed, *map(ord, signature)])

    def memory(dtype: str, shape: tuple[int, ...]) -> Array:
        scale = 2.0 ** rng.integers(-6, 6)
        return (scale * rng.standard_normal(shape)).astype(DTYPES[dtype])

    leaves = [memory(dtype, shape) for dtype, shape, *_ in SIGNATURES[signature]]
    anchors = [memory(dtype, shape) for dtype, shape, *_ in SIGNATURES[signature]]
    return leaves, [x.copy() if rng.random() < 0.2 else a for x, a in zip(leaves, anchors, strict=True)]


def views(signature: str, leaves: list[Array], anchors: list[Array]) -> tuple[list[Array], list[Array]]:
    rows = SIGNATURES[signature]
    return (
        [LAYOUTS[mine](x) for (_, _, mine, _), x in zip(rows, leaves, strict=True)],
        [LAYOUTS[theirs](a) for (_, _, _, theirs), a in zip(rows, anchors, strict=True)],
    )


def verbs(backend: str, x: list[Array], a: list[Array]) -> dict[str, Any]:
    f = functools.partial(penalty, l1=L1, l2=L2, backend=backend)
    value, both = jax.value_and_grad(lambda p, q: f(p, anchor=q), (0, 1))(x, a)
    return {
        "penalty": value,
        "grad": both,
        "penalty_and_grad": penalty_and_grad(x, L1, L2, anchor=a, backend=backend),
        "sums": sums(x, anchor=a, backend=backend)[:2],
        "stats": stats(x, anchor=a, backend=backend)[:5],
        "prox": prox(x, L1, L2, step=STEP, anchor=a, backend=backend),
    }


@functools.cache
def inside(signature: str, backend: str) -> Any:
    """The layouts are made inside jit, from the memory."""
    return jax.jit(lambda leaves, anchors: verbs(backend, *views(signature, leaves, anchors)))


def check(found: dict[str, Any], x: list[Array], a: list[Array], *, wide: bool) -> None:
    pairs = list(zip(x, a, strict=True))
    value = oracle.penalty(x, [L1] * len(x), [L2] * len(x), a)
    for total in (found["penalty"], found["penalty_and_grad"][0]):
        assert total.dtype == ("float64" if wide else "float32")
        np.testing.assert_allclose(total, value, rtol=1e-6, atol=1e-37)
    for *row, (leaf, anchor) in zip(*found["sums"], pairs, strict=True):
        bound = 1e-13 if leaf.dtype == np.float64 else 1e-6
        np.testing.assert_allclose(np.float64(row), oracle.sums(leaf, anchor), rtol=bound, atol=1e-37)
    for *row, (leaf, anchor) in zip(*found["stats"], pairs, strict=True):
        expected = oracle.stats(leaf, anchor)
        np.testing.assert_allclose([float(v) for v in row[:3]], expected[:3], rtol=1e-6)
        assert [int(v) for v in row[3:]] == list(expected[3:])
    for i, (leaf, anchor) in enumerate(pairs):
        scale = np.abs(leaf.astype(np.float64)) + np.abs(anchor.astype(np.float64)) + L1
        exact = oracle.gradient(leaf, L1, L2, anchor)
        close_gradient(found["grad"][0][i], exact, leaf.dtype.name, scale)
        close_gradient(found["grad"][1][i], -exact, leaf.dtype.name, scale)
        close_gradient(found["penalty_and_grad"][1][i], exact, leaf.dtype.name, scale)
        close_gradient(found["prox"][i], oracle.prox(leaf, L1, L2, STEP, anchor), leaf.dtype.name, scale)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("signature", SIGNATURES)
def test_layouts_made_inside_jit(signature: str, backend: str) -> None:
    wide = signature == "wide"
    with jax.enable_x64(wide):
        for seed in range(LISTS):
            memory = draw(signature, seed)
            check(inside(signature, backend)(*memory), *views(signature, *memory), wide=wide)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("signature", ["mixed", "opposed", "wide"])
@pytest.mark.parametrize("place", [False, True], ids=["NumPy", "device_put"])
def test_layouts_of_numpy(signature: str, backend: str, place: bool) -> None:
    """Fortran order, slices and negative strides, given as they are."""
    wide = signature == "wide"
    with jax.enable_x64(wide):
        for seed in range(100, 100 + LISTS // 2):
            x, a = views(signature, *(list(map(np.asfortranarray, part)) for part in draw(signature, seed)))
            given = jax.device_put((x, a)) if place else (x, a)
            check(verbs(backend, *given), x, a, wide=wide)


def test_anchors_of_another_layout_than_their_leaf_after_a_donated_step() -> None:
    """The leaf's memory is given away while the anchor's is read."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(leaves: Any, anchors: Any) -> Any:
        x, a = views("opposed", leaves, anchors)
        return prox(x, L1, L2, step=STEP, anchor=a, backend="cpu")

    for seed in range(10):
        leaves, anchors = draw("opposed", seed)
        found = step(jax.device_put(leaves), jax.device_put(anchors))
        for y, x, a in zip(found, *views("opposed", leaves, anchors), strict=True):
            scale = np.abs(x.astype(np.float64)) + np.abs(a.astype(np.float64)) + L1
            close_gradient(y, oracle.prox(x, L1, L2, STEP, a), x.dtype.name, scale)
