"""One chunk, one program, one pass: what is found in it, and what the operation writes.

A row is 16 bytes for each of 256 threads (8 bytes where an element is one). A lane adds up its elements of all rows,
at most RUN of them, in float32 (float64 leaves in float64); the lanes are added in float64. Rows are taken four at a
time, unmasked, so that each thread has four 128-bit loads under way; the rest, and arrays that do not start at a
multiple of 16 bytes, row by row under a mask. Both ways add in the same order: the result does not depend on alignment.
"""

import triton
import triton.language as tl

from .elastic_net import UNSCALED, larger, magnitude, scaled, written
from .small_floats import widened

THREADS = tl.constexpr(256)
LOADS = tl.constexpr(4)  # rows under way at once
SUMS = tl.constexpr(2)  # columns that every operation finds


@triton.jit
def widen(v, dtype: tl.constexpr):
    """In what an element is computed. Elements of 8 bits come as bytes."""
    if dtype == tl.float64:
        return v
    elif dtype == tl.float8e4nv:
        return widened(v, 4, 3, False)
    elif dtype == tl.float8e5:
        return widened(v, 5, 2, True)
    else:
        return v.to(tl.float32)


@triton.jit
def pointer(address, dtype: tl.constexpr):
    return address.to(tl.pointer_type(dtype))


@triton.jit
def at_16_bytes(address, dtype: tl.constexpr):
    """The same where the address is a multiple of 16, and the compiler may know it."""
    # The hint has to meet the cast itself: Triton 3.6 loses one that is given to the result of a call.
    return tl.multiple_of((address // 16 * 16).to(tl.pointer_type(dtype)), 16)


@triton.jit
def add_row(found, d, inside, COLUMNS: tl.constexpr):
    """Adds one row to what the lanes have found. `inside` is false where there is no element, and d is 0 there."""
    m, s = magnitude(d), scaled(d)
    if COLUMNS > SUMS:
        zeros = found[3] + tl.where((d == 0) & inside, 1.0, 0.0)
        non_finite = found[4] + tl.where((m == float("inf")) | (d != d), 1.0, 0.0)
        return found[0] + m, tl.fma(s, s, found[1]), larger(found[2], m), zeros, non_finite
    else:
        return found[0] + m, tl.fma(s, s, found[1])


@triton.jit
def across_lanes(found, COLUMNS: tl.constexpr):
    """In float64; the largest of the lanes is NaN if any is."""
    total = (tl.sum(found[0].to(tl.float64)), tl.sum(found[1].to(tl.float64)) * UNSCALED)
    if COLUMNS > SUMS:
        m = found[2].to(tl.float64)
        any_nan = tl.max((m != m).to(tl.int32)) > 0
        largest = tl.where(any_nan, float("nan"), tl.max(tl.where(m == m, m, 0.0)))
        return total[0], total[1], largest, tl.sum(found[3].to(tl.float64)), tl.sum(found[4].to(tl.float64))
    else:
        return total


@triton.jit
def walk(
    x_at, anchor_at, out_at, writes, n, pair, has_l1, has_l2,
    dtype: tl.constexpr, OP: tl.constexpr, WRITES: tl.constexpr, READS_OLD: tl.constexpr, COLUMNS: tl.constexpr,
    ANCHORED: tl.constexpr,
):  # fmt: skip
    """Elements [0, n) from these addresses; those of an array that the operation does not have equal `x_at`."""
    F: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    BITS: tl.constexpr = dtype.primitive_bitwidth
    ROW: tl.constexpr = THREADS * (8 if BITS == 8 else 128 // BITS)
    STORED: tl.constexpr = tl.uint8 if BITS == 8 else dtype
    if WRITES:
        a, b = tl.load(pair).to(F), tl.load(pair + 1).to(F)
    lanes = tl.arange(0, ROW)
    zero = tl.zeros((ROW,), F)
    found = (zero, zero, zero, zero, zero) if COLUMNS > SUMS else (zero, zero)

    aligned = ((x_at | anchor_at | out_at) & 15) == 0
    groups = tl.where(aligned, n // (LOADS * ROW), 0)
    x, anchor, out = at_16_bytes(x_at, STORED), at_16_bytes(anchor_at, STORED), at_16_bytes(out_at, STORED)
    for g in range(groups):
        xs, anchors, outs = (), (), ()
        for j in tl.static_range(LOADS):
            at = (g * LOADS + j) * ROW + lanes
            xs += (tl.load(x + at, eviction_policy="evict_first"),)
            if ANCHORED:
                anchors += (tl.load(anchor + at, eviction_policy="evict_first"),)
            if READS_OLD:
                outs += (tl.load(out + at, eviction_policy="evict_first"),)
        for j in tl.static_range(LOADS):
            v = widen(xs[j], dtype)
            origin = widen(anchors[j], dtype) if ANCHORED else zero
            found = add_row(found, v - origin, True, COLUMNS)
            if WRITES:
                old = widen(outs[j], dtype) if READS_OLD else zero
                new = written(v, origin, old, a, b, has_l1, has_l2, OP)
                if writes:
                    tl.store(out + (g * LOADS + j) * ROW + lanes, new.to(dtype), eviction_policy="evict_first")

    x, anchor, out = pointer(x_at, STORED), pointer(anchor_at, STORED), pointer(out_at, STORED)
    for start in range(groups * LOADS * ROW, n, ROW):
        at = start + lanes
        inside = at < n
        v = widen(tl.load(x + at, inside, 0), dtype)
        origin = widen(tl.load(anchor + at, inside, 0), dtype) if ANCHORED else zero
        found = add_row(found, v - origin, inside, COLUMNS)
        if WRITES:
            old = widen(tl.load(out + at, inside, 0), dtype) if READS_OLD else zero
            new = written(v, origin, old, a, b, has_l1, has_l2, OP)
            if writes:
                tl.store(out + at, new.to(dtype), inside)
    return across_lanes(found, COLUMNS)
