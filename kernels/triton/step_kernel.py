"""The kernel of a step: one launch walks all chunks, as the penalty's kernel does (kernel.py), with the same tables.

addresses   int64: x of every leaf, then the anchors, then the arrays of the step in the order of their roles. A
            zero for the array that decides (the gradient, else the second moment) stands for a leaf that is only
            read. The lowest bit of an address of x: the state is float32 beside 16 bits.
"""

import triton
import triton.language as tl

from .kernel import finalise
from .step_formula import COEFFICIENTS, FIRST, GRADIENT, MAXIMUM, SECOND, SKIP
from .step_walk import step_walk

COLUMNS, NO_LARGEST = tl.constexpr(6), tl.constexpr(-1)


@triton.jit
def array_at(addresses, leaf_count, place, x, offset, size, reads, HAS: tl.constexpr):
    """Where an array of the leaf starts, or x where there is none; and how many places the arrays after it are away."""
    if HAS:
        at = tl.load(addresses + place * leaf_count)
        return tl.where(reads, at + offset * size, x), place + 1
    else:
        return x, place


@triton.jit(do_not_specialize=["chunk_count", "slot_count", "leaf_count"])
def step_kernel(
    layout,
    addresses,
    coefficients,  # (slots, COEFFICIENTS) float64
    partials,  # (chunks, COLUMNS) float64: scratch
    ticket,  # int32, zero before the launch and after it
    totals,  # (slots, COLUMNS) float64, written
    chunk_count,
    slot_count,
    leaf_count,
    ARRAYS: tl.constexpr,  # of the step, besides x and the anchor
    ANCHORED: tl.constexpr,
    WIDE: tl.constexpr,  # whether there are leaves of 16 bits with a state of float32
    LOADS: tl.constexpr,  # rows under way at once
):
    programs = tl.num_programs(0)
    for chunk in range(tl.program_id(0), chunk_count, programs):
        span, leaf_and_tag = tl.load(layout + 2 * chunk), tl.load(layout + 2 * chunk + 1)
        n, offset = (span & 0xFFFFFF).to(tl.int32), (span >> 24) & 0xFFFFFFFFFF
        leaf, tag = (leaf_and_tag & 0xFFFFFFFF).to(tl.int32), (leaf_and_tag >> 32).to(tl.int32)
        dtype, slot = tag & 15, (tag >> 6) & 0x3FFFFFF
        mine = addresses + leaf
        marked = tl.load(mine)
        wide, size = (marked & 1) != 0, tl.where(dtype == 3, 8, tl.where(dtype == 2, 4, 2))
        x = (marked & ~1) + offset * size
        rows = coefficients + COEFFICIENTS * slot
        first_array: tl.constexpr = 2 if ANCHORED else 1
        # The gradient comes first, where there is one; the second moment alone where there is none.
        writes = (tl.load(mine + first_array * leaf_count) != 0) & (tl.load(rows + SKIP) == 0)
        state = tl.where(wide, 4, size)
        anchor, place = array_at(mine, leaf_count, 1, x, offset, size, True, ANCHORED)
        gradient, place = array_at(mine, leaf_count, place, x, offset, size, writes, (GRADIENT & ARRAYS) != 0)
        first, place = array_at(mine, leaf_count, place, x, offset, state, writes, (FIRST & ARRAYS) != 0)
        second, place = array_at(mine, leaf_count, place, x, offset, state, writes, (SECOND & ARRAYS) != 0)
        maximum, place = array_at(mine, leaf_count, place, x, offset, state, writes, (MAXIMUM & ARRAYS) != 0)
        wide = wide & writes  # what is only read is read as x is
        at = (x, anchor, gradient, first, second, maximum)
        # The one switch over dtypes: the table of kernels/dtypes.h.
        if dtype == 2:
            found = walk_at(at, writes, n, rows, tl.float32, tl.float32, ARRAYS, ANCHORED, LOADS)
        elif dtype == 3:
            found = walk_at(at, writes, n, rows, tl.float64, tl.float64, ARRAYS, ANCHORED, LOADS)
        elif dtype == 0:
            found = half_at(at, writes, wide, n, rows, tl.float16, ARRAYS, ANCHORED, WIDE, LOADS)
        else:
            found = half_at(at, writes, wide, n, rows, tl.bfloat16, ARRAYS, ANCHORED, WIDE, LOADS)
        for column in tl.static_range(COLUMNS):
            tl.store(partials + chunk * COLUMNS + column, found[column])
    tl.debug_barrier()  # this program's partials before its ticket
    if tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == programs - 1:
        finalise(layout + 2 * chunk_count, partials, totals, slot_count, COLUMNS, NO_LARGEST)
        tl.store(ticket, 0)


@triton.jit
def walk_at(
    at, writes, n, coefficients,
    T: tl.constexpr, S: tl.constexpr, ARRAYS: tl.constexpr, ANCHORED: tl.constexpr, LOADS: tl.constexpr,
):  # fmt: skip
    return step_walk(
        at[0], at[1], at[2], at[3], at[4], at[5], writes, n, coefficients, T, S, ARRAYS, ANCHORED, LOADS
    )  # fmt: skip


@triton.jit
def half_at(
    at, writes, wide, n, coefficients,
    T: tl.constexpr, ARRAYS: tl.constexpr, ANCHORED: tl.constexpr, WIDE: tl.constexpr, LOADS: tl.constexpr,
):  # fmt: skip
    """A leaf of 16 bits, with a state of its own dtype or of float32."""
    if WIDE:
        if wide:
            found = walk_at(at, writes, n, coefficients, T, tl.float32, ARRAYS, ANCHORED, LOADS)
        else:
            found = walk_at(at, writes, n, coefficients, T, T, ARRAYS, ANCHORED, LOADS)
    else:
        found = walk_at(at, writes, n, coefficients, T, T, ARRAYS, ANCHORED, LOADS)
    return found
