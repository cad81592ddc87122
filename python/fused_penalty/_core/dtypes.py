"""The table of dtypes that a leaf may have: the twin of kernels/dtypes.h, and a test compares the two.

A new dtype is a row here and there, and its load in the kernels' `elements` (C++, CUDA) and `walk` (Triton).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """A row. Its number is its place in the table."""

    name: str  # as JAX and PyTorch call it
    native: str  # as kernels/dtypes.h calls it
    bytes: int
    writable: bool  # whether an operation may write a leaf, or a gradient, of this dtype
    safetensors: str


TABLE = (
    DType("float16", "Float16", 2, True, "F16"),
    DType("bfloat16", "BFloat16", 2, True, "BF16"),
    DType("float32", "Float32", 4, True, "F32"),
    DType("float64", "Float64", 8, True, "F64"),
    DType("float8_e4m3fn", "Float8E4M3", 1, False, "F8_E4M3"),
    DType("float8_e5m2", "Float8E5M2", 1, False, "F8_E5M2"),
)
BITS = 4  # of a chunk's tag and of a layout that hold the number
MASK = (1 << BITS) - 1

DTYPES = tuple(row.name for row in TABLE)
WRITABLE = tuple(row.name for row in TABLE if row.writable)
assert len(TABLE) <= 1 << BITS


def listed(names: tuple[str, ...]) -> str:
    """The names as a sentence has them.

    >>> listed(WRITABLE)
    'float16, bfloat16, float32 or float64'
    """
    return f"{', '.join(names[:-1])} or {names[-1]}"
