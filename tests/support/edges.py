"""The one list of edge cases: sizes, shapes, constants, and values at the ends of a dtype's range."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.models.trees import Shape
from fused_penalty._core import backends
from fused_penalty._core.plan import GPU_CHUNK

# Around the lanes of one row of the CPU walk, its block, and the chunk of the plan.
ROW, BLOCK, CHUNK = 32, 1024, 1 << 16
SMALL_SIZES = sorted({k for n in (ROW, BLOCK) for k in (0, 1, 3, n - 1, n, n + 1, 3 * n, 8 * n + 2)})
SIZES = [*SMALL_SIZES, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]
# Triton's interpreter is slow. There a leaf has the sizes at which the kernel changes its way, and no others: rows
# under a mask, four rows at once, both, more than a chunk.
INTERPRETED = backends.TRITON_DEVICES == ("cpu",)
ROW_BYTES, LOADS = 16 * 256, 4  # kernels/triton/walk.py: 16 bytes for each thread, and rows under way at once
SHAPES: tuple[Shape, ...] = ((), (0,), (1,), (3,), (2, 0, 3), (5, 7), (2, 3, 4), (2, 1, 3, 2), (1, 2, 1, 2, 3))


def lengths(dtype: np.dtype, chunk: int) -> list[int]:
    """The sizes of flat leaves."""
    if not is_interpreted(chunk):
        return [*SMALL_SIZES, chunk - 1, chunk, chunk + 1, 3 * chunk]
    row = ROW_BYTES // dtype.itemsize
    group = LOADS * row
    around = {k + d for k in (row, group, group + row, chunk) for d in (-1, 0, 1)}
    return sorted({0, 1, 3, 2 * row, group + 2 * row, 2 * group + 2, *around})


def is_interpreted(chunk: int) -> bool:
    """Other backends may run in the interpreter's process, too, with chunks of another size and all lengths."""
    return INTERPRETED and chunk == GPU_CHUNK


def edge_leaves(dtype: np.dtype, chunk: int = CHUNK) -> Iterator[tuple[str, np.ndarray]]:
    """(name, leaf) for every edge case: shapes, sizes, constants, zeros, and values at the range's ends."""
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        yield f"shape{shape}", np.asarray(rng.standard_normal(shape)).astype(dtype)
    for n in lengths(dtype, chunk):
        yield f"size{n}", rng.standard_normal(n).astype(dtype)
    yield "zeros", np.zeros(BLOCK + 5, dtype)
    yield "signed_zeros", np.array([0.0, -0.0, 1.0, -1.0], dtype)
    chunks = 1 if is_interpreted(chunk) else 3
    for value in (0.1, -1 / 3, 1.0):
        yield f"constant{value:.2g}", np.full(chunks * chunk + 7, value, dtype)
    if dtype.itemsize > 2 or dtype.name == "bfloat16":  # float16 ends at 65504
        for value in (1e-18, 1e18):
            yield f"constant{value:g}", np.full(100, value, dtype)
        spread = 10.0 ** rng.uniform(-18, 18, BLOCK) * rng.choice([-1, 1], BLOCK)
        yield "spread", spread.astype(dtype)
    else:
        yield "half_range", np.array([6e-8, 6e-5, 65504.0, -65504.0], dtype)
