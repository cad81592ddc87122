"""The one list of edge cases: sizes, shapes, constants, and values at the ends of a dtype's range."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.models.trees import Shape

# Around the lanes of one row of the CPU walk, its block, and the chunk of the plan.
ROW, BLOCK, CHUNK = 32, 1024, 1 << 16
SMALL_SIZES = sorted({k for n in (ROW, BLOCK) for k in (0, 1, 3, n - 1, n, n + 1, 3 * n, 8 * n + 2)})
SIZES = [*SMALL_SIZES, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]
SHAPES: tuple[Shape, ...] = ((), (0,), (1,), (3,), (2, 0, 3), (5, 7), (2, 3, 4), (2, 1, 3, 2), (1, 2, 1, 2, 3))


def edge_leaves(dtype: np.dtype, chunk: int = CHUNK) -> Iterator[tuple[str, np.ndarray]]:
    """(name, leaf) for every edge case: shapes, sizes, constants, zeros, and values at the range's ends."""
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        yield f"shape{shape}", np.asarray(rng.standard_normal(shape)).astype(dtype)
    for n in [*SMALL_SIZES, chunk - 1, chunk, chunk + 1, 3 * chunk]:
        yield f"size{n}", rng.standard_normal(n).astype(dtype)
    yield "zeros", np.zeros(BLOCK + 5, dtype)
    yield "signed_zeros", np.array([0.0, -0.0, 1.0, -1.0], dtype)
    for value in (0.1, -1 / 3, 1.0):
        yield f"constant{value:.2g}", np.full(3 * chunk + 7, value, dtype)
    if dtype.itemsize > 2 or dtype.name == "bfloat16":  # float16 ends at 65504
        for value in (1e-18, 1e18):
            yield f"constant{value:g}", np.full(100, value, dtype)
        spread = 10.0 ** rng.uniform(-18, 18, BLOCK) * rng.choice([-1, 1], BLOCK)
        yield "spread", spread.astype(dtype)
    else:
        yield "half_range", np.array([6e-8, 6e-5, 65504.0, -65504.0], dtype)
