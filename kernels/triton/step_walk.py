"""One chunk of a step, one program, one pass: every array is read once and written once.

A row is four elements (of float64 two) for each of 256 threads: more would need more registers than there are. As in
walk.py, a lane adds up its elements of all rows in float32 (float64 leaves in float64), rows are taken unmasked where
all arrays start at multiples of 16 bytes, and the result does not depend on alignment.
"""

import triton
import triton.language as tl

from .elastic_net import UNSCALED, magnitude, scaled
from .step_formula import FIRST, GRADIENT, MAXIMUM, SECOND, read_coefficients, stepped
from .walk import THREADS, at_16_bytes, pointer, widen


@triton.jit
def load(at, inside, WHOLE: tl.constexpr):
    if WHOLE:
        return tl.load(at, eviction_policy="evict_first")
    else:
        return tl.load(at, inside, 0)


@triton.jit
def store(at, v, writes, inside, T: tl.constexpr, WHOLE: tl.constexpr):
    if writes:
        if WHOLE:
            tl.store(at, v.to(T), eviction_policy="evict_first")
        else:
            tl.store(at, v.to(T), inside)


@triton.jit
def load_row(pointers, at, inside, ARRAYS: tl.constexpr, ANCHORED: tl.constexpr, WHOLE: tl.constexpr):
    """x, anchor, gradient, first, second, maximum as they lie in memory; x again where the step has none."""
    x = load(pointers[0] + at, inside, WHOLE)
    anchor = load(pointers[1] + at, inside, WHOLE) if ANCHORED else x
    gradient = load(pointers[2] + at, inside, WHOLE) if GRADIENT & ARRAYS else x
    first = load(pointers[3] + at, inside, WHOLE) if FIRST & ARRAYS else x
    second = load(pointers[4] + at, inside, WHOLE) if SECOND & ARRAYS else x
    maximum = load(pointers[5] + at, inside, WHOLE) if MAXIMUM & ARRAYS else x
    return x, anchor, gradient, first, second, maximum


@triton.jit
def step_row(
    found, row, pointers, at, writes, inside, zero, c,
    T: tl.constexpr, S: tl.constexpr, ARRAYS: tl.constexpr, ANCHORED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Steps one row, stores it, and adds it to what the lanes have found; the two counts of a lane share a number."""
    x = widen(row[0], T)
    anchor = widen(row[1], T) if ANCHORED else zero
    gradient = widen(row[2], T) if GRADIENT & ARRAYS else zero
    first = widen(row[3], S) if FIRST & ARRAYS else zero
    second = widen(row[4], S) if SECOND & ARRAYS else zero
    maximum = widen(row[5], S) if MAXIMUM & ARRAYS else zero
    z, first, second, maximum, gradient, after = stepped(
        x, anchor, gradient, first, second, maximum, c, ARRAYS, ANCHORED
    )
    store(pointers[0] + at, z, writes, inside, T, WHOLE)
    if GRADIENT & ARRAYS:
        if FIRST & ARRAYS:
            store(pointers[3] + at, first, writes, inside, S, WHOLE)
        if SECOND & ARRAYS:
            store(pointers[4] + at, second, writes, inside, S, WHOLE)
        if MAXIMUM & ARRAYS:
            store(pointers[5] + at, maximum, writes, inside, S, WHOLE)
    d, change = scaled(x - anchor), scaled(z - x)
    counts = found[4] + tl.where((after == 0) & inside, 1, 0)
    grad_square = found[2]
    if GRADIENT & ARRAYS:
        g = scaled(gradient)
        grad_square = tl.fma(g, g, grad_square)
        counts += tl.where((magnitude(gradient) == float("inf")) | (gradient != gradient), 1 << 16, 0)
    return (
        found[0] + magnitude(x - anchor), tl.fma(d, d, found[1]), grad_square, tl.fma(change, change, found[3]), counts
    )  # fmt: skip


@triton.jit
def step_walk(
    x_at, anchor_at, gradient_at, first_at, second_at, maximum_at, writes, n, coefficients,
    T: tl.constexpr, S: tl.constexpr, ARRAYS: tl.constexpr, ANCHORED: tl.constexpr, LOADS: tl.constexpr,
):  # fmt: skip
    """Elements [0, n) from these addresses; those of an array that the step does not have equal `x_at`, and all of a
    leaf that is only read."""
    F: tl.constexpr = tl.float64 if T.primitive_bitwidth == 64 else tl.float32
    ROW: tl.constexpr = THREADS * (128 // F.primitive_bitwidth)
    c = read_coefficients(coefficients, F)
    lanes = tl.arange(0, ROW)
    zero = tl.zeros((ROW,), F)
    found = (zero, zero, zero, zero, tl.zeros((ROW,), tl.int32))

    aligned = ((x_at | anchor_at | gradient_at | first_at | second_at | maximum_at) & 15) == 0
    groups = tl.where(aligned, n // (LOADS * ROW), 0)
    whole = (
        at_16_bytes(x_at, T), at_16_bytes(anchor_at, T), at_16_bytes(gradient_at, T),
        at_16_bytes(first_at, S), at_16_bytes(second_at, S), at_16_bytes(maximum_at, S),
    )  # fmt: skip
    for g in range(groups):
        rows = ()
        for j in tl.static_range(LOADS):
            rows += (load_row(whole, (g * LOADS + j) * ROW + lanes, True, ARRAYS, ANCHORED, True),)
        for j in tl.static_range(LOADS):
            at = (g * LOADS + j) * ROW + lanes
            found = step_row(found, rows[j], whole, at, writes, True, zero, c, T, S, ARRAYS, ANCHORED, True)

    some = (
        pointer(x_at, T), pointer(anchor_at, T), pointer(gradient_at, T),
        pointer(first_at, S), pointer(second_at, S), pointer(maximum_at, S),
    )  # fmt: skip
    for start in range(groups * LOADS * ROW, n, ROW):
        at = start + lanes
        inside = at < n
        row = load_row(some, at, inside, ARRAYS, ANCHORED, False)
        found = step_row(found, row, some, at, writes, inside, zero, c, T, S, ARRAYS, ANCHORED, False)

    return (
        tl.sum(found[0].to(tl.float64)),
        tl.sum(found[1].to(tl.float64)) * UNSCALED,
        tl.where(writes, tl.sum(found[2].to(tl.float64)) * UNSCALED, 0.0),
        tl.where(writes, tl.sum(found[3].to(tl.float64)) * UNSCALED, 0.0),
        tl.where(writes, tl.sum((found[4] & 0xFFFF).to(tl.float64)), 0.0),
        tl.where(writes, tl.sum((found[4] >> 16).to(tl.float64)), 0.0),
    )
