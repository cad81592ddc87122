"""One chunk, one program, one pass: what is found in it, and what the operation writes.

A row is 16 bytes for each of 256 threads. A lane adds up its elements of all rows, at most RUN of them, in float32
(float64 leaves in float64); the lanes are added in float64. Rows are taken four at a time, unmasked, so that each
thread has four 128-bit loads under way; the rest, and arrays that do not start at a multiple of 16 bytes, row by row
under a mask. Both ways add in the same order: the result does not depend on alignment.
"""

import triton
import triton.language as tl

from .elastic_net import ADD_GRADIENT, STATS, SUMS, UNSCALED, larger, magnitude, scaled, written

THREADS = tl.constexpr(256)
LOADS = tl.constexpr(4)  # rows under way at once


@triton.jit
def widen(v):
    """In what an element is computed."""
    if v.dtype == tl.float64:
        return v
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
def add_row(found, d, inside, OP: tl.constexpr):
    """Adds one row to what the lanes have found. `inside` is false where there is no element, and d is 0 there."""
    m, s = magnitude(d), scaled(d)
    if OP == STATS:
        zeros = found[3] + tl.where((d == 0) & inside, 1.0, 0.0)
        non_finite = found[4] + tl.where((m == float("inf")) | (d != d), 1.0, 0.0)
        return found[0] + m, tl.fma(s, s, found[1]), larger(found[2], m), zeros, non_finite
    else:
        return found[0] + m, tl.fma(s, s, found[1])


@triton.jit
def across_lanes(found, OP: tl.constexpr):
    """In float64; the largest of the lanes is NaN if any is."""
    total = (tl.sum(found[0].to(tl.float64)), tl.sum(found[1].to(tl.float64)) * UNSCALED)
    if OP == STATS:
        m = found[2].to(tl.float64)
        any_nan = tl.max((m != m).to(tl.int32)) > 0
        largest = tl.where(any_nan, float("nan"), tl.max(tl.where(m == m, m, 0.0)))
        return total[0], total[1], largest, tl.sum(found[3].to(tl.float64)), tl.sum(found[4].to(tl.float64))
    else:
        return total


@triton.jit
def walk(
    x_at, anchor_at, out_at, writes, n, factors, has_l1, has_l2,
    dtype: tl.constexpr, OP: tl.constexpr, ANCHORED: tl.constexpr,
):  # fmt: skip
    """Elements [0, n) from these addresses; those of an array that the operation does not have equal `x_at`."""
    F: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    ROW: tl.constexpr = THREADS * 128 // dtype.primitive_bitwidth
    READS_OUT: tl.constexpr = OP == ADD_GRADIENT
    WRITES: tl.constexpr = OP != SUMS and OP != STATS
    if WRITES:
        a, b = tl.load(factors).to(F), tl.load(factors + 1).to(F)
    lanes = tl.arange(0, ROW)
    zero = tl.zeros((ROW,), F)
    found = (zero, zero, zero, zero, zero) if OP == STATS else (zero, zero)

    aligned = ((x_at | anchor_at | out_at) & 15) == 0
    groups = tl.where(aligned, n // (LOADS * ROW), 0)
    x, anchor, out = at_16_bytes(x_at, dtype), at_16_bytes(anchor_at, dtype), at_16_bytes(out_at, dtype)
    for g in range(groups):
        xs, anchors, outs = (), (), ()
        for j in tl.static_range(LOADS):
            at = (g * LOADS + j) * ROW + lanes
            xs += (tl.load(x + at, eviction_policy="evict_first"),)
            if ANCHORED:
                anchors += (tl.load(anchor + at, eviction_policy="evict_first"),)
            if READS_OUT:
                outs += (tl.load(out + at, eviction_policy="evict_first"),)
        for j in tl.static_range(LOADS):
            v = widen(xs[j])
            origin = widen(anchors[j]) if ANCHORED else zero
            found = add_row(found, v - origin, True, OP)
            if WRITES:
                old = widen(outs[j]) if READS_OUT else zero
                new = written(v, origin, old, a, b, has_l1, has_l2, OP)
                if writes:
                    tl.store(out + (g * LOADS + j) * ROW + lanes, new.to(dtype), eviction_policy="evict_first")

    x, anchor, out = pointer(x_at, dtype), pointer(anchor_at, dtype), pointer(out_at, dtype)
    for start in range(groups * LOADS * ROW, n, ROW):
        at = start + lanes
        inside = at < n
        v = widen(tl.load(x + at, inside, 0.0))
        origin = widen(tl.load(anchor + at, inside, 0.0)) if ANCHORED else zero
        found = add_row(found, v - origin, inside, OP)
        if WRITES:
            old = widen(tl.load(out + at, inside, 0.0)) if READS_OUT else zero
            new = written(v, origin, old, a, b, has_l1, has_l2, OP)
            if writes:
                tl.store(out + at, new.to(dtype), inside)
    return across_lanes(found, OP)
