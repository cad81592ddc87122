"""The kernel: one launch walks all chunks; the last program to finish adds up what was found, slot by slot, in the
order of the table. No float atomics, so the result does not depend on the grid or on timing.

All addresses come from tables in device memory, since a launch of Triton has one argument an array:

    layout      int64: struct Chunk of kernels/chunks.h, two words each, sorted by slot; then for each slot the number
                of its first chunk, and the number of chunks
    addresses   int64: x of every leaf, then the anchors, then the outputs, as far as the operation has them; a zero
                output stands for a leaf that is only read
"""

import triton
import triton.language as tl

from .walk import walk

# Slots and partials of a slot that the last program adds up at once.
SLOTS, PARTIALS = tl.constexpr(32), tl.constexpr(64)
LARGEST = tl.constexpr(2)  # the one column of an operation that is no sum


@triton.jit
def finalise(first_chunks, partials, totals, slot_count, COLUMNS: tl.constexpr, LARGEST: tl.constexpr):
    """Other programs wrote the partials: past the L1. LARGEST: the column that is no sum."""
    for from_slot in range(0, slot_count, SLOTS):
        slot = from_slot + tl.arange(0, SLOTS)
        first = tl.load(first_chunks + slot, slot < slot_count, 0)
        stop = tl.load(first_chunks + slot + 1, slot < slot_count, 0)
        for column in tl.static_range(COLUMNS):
            total = tl.zeros((SLOTS, PARTIALS), tl.float64)
            for k in range(0, tl.max(stop - first), PARTIALS):
                chunk = first[:, None] + k + tl.arange(0, PARTIALS)[None, :]
                at = partials + chunk * COLUMNS + column
                part = tl.load(at, chunk < stop[:, None], 0.0, cache_modifier=".cg")
                if column == LARGEST:  # a NaN stays
                    total = tl.where((part > total) | (part != part), part, total)
                else:
                    total += part
            if column == LARGEST:
                any_nan = tl.max((total != total).to(tl.int32), 1) > 0
                result = tl.where(any_nan, float("nan"), tl.max(tl.where(total == total, total, 0.0), 1))
            else:
                result = tl.sum(total, 1)
            tl.store(totals + slot * COLUMNS + column, result, slot < slot_count)


@triton.jit
def walk_double_or_small(
    x, anchor, out, writes, n, pair, has_l1, has_l2, dtype,
    OP: tl.constexpr, WRITES: tl.constexpr, READS_OLD: tl.constexpr, COLUMNS: tl.constexpr, ANCHORED: tl.constexpr,
):  # fmt: skip
    """The rest of the dtypes; those of 8 bits are only read."""
    if dtype == 3:
        found = walk(
            x, anchor, out, writes, n, pair, has_l1, has_l2, tl.float64, OP, WRITES, READS_OLD, COLUMNS, ANCHORED
        )
    elif dtype == 4:
        found = walk(x, anchor, x, False, n, pair, has_l1, has_l2, tl.float8e4nv, OP, False, False, COLUMNS, ANCHORED)
    else:
        found = walk(x, anchor, x, False, n, pair, has_l1, has_l2, tl.float8e5, OP, False, False, COLUMNS, ANCHORED)
    return found


@triton.jit(do_not_specialize=["chunk_count", "slot_count", "leaf_count"])
def penalty_kernel(
    layout,
    addresses,
    coefficients,  # (slots, 2) float64: a and b; not read by operations that have none
    partials,  # (chunks, columns) float64: scratch
    ticket,  # int32, zero before the launch and after it
    totals,  # (slots, columns) float64, written
    chunk_count,
    slot_count,
    leaf_count,
    OP: tl.constexpr,  # its row in the table of operations: the code ...
    WRITES: tl.constexpr,  # ... whether it writes,
    READS_OLD: tl.constexpr,  # ... whether it reads what stood where it writes, other than x
    COLUMNS: tl.constexpr,  # ... and how many columns it finds
    ANCHORED: tl.constexpr,
    SMALL: tl.constexpr,  # whether there are leaves of 8 bits: reading them takes registers that others want
):
    programs = tl.num_programs(0)
    for c in range(tl.program_id(0), chunk_count, programs):
        span, leaf_and_tag = tl.load(layout + 2 * c), tl.load(layout + 2 * c + 1)
        n, offset = (span & 0xFFFFFF).to(tl.int32), (span >> 24) & 0xFFFFFFFFFF
        leaf, tag = (leaf_and_tag & 0xFFFFFFFF).to(tl.int32), (leaf_and_tag >> 32).to(tl.int32)
        dtype, has_l1, has_l2, slot = tag & 15, ((tag >> 4) & 1) != 0, ((tag >> 5) & 1) != 0, (tag >> 6) & 0x3FFFFFF
        skip = offset << tl.where(dtype < 2, 1, tl.where(dtype < 4, dtype, 0) if SMALL else dtype)  # in bytes
        x = tl.load(addresses + leaf) + skip
        anchor, out, writes, pair = x, x, False, coefficients + 2 * slot
        if ANCHORED:
            anchor = tl.load(addresses + leaf_count + leaf) + skip
        if WRITES:
            at = tl.load(addresses + (leaf_count * 2 if ANCHORED else leaf_count) + leaf)
            writes = at != 0
            out = tl.where(writes, at + skip, x)
        # The one switch over dtypes: the table of kernels/dtypes.h.
        if dtype == 0:
            found = walk(
                x, anchor, out, writes, n, pair, has_l1, has_l2, tl.float16, OP, WRITES, READS_OLD, COLUMNS, ANCHORED
            )
        elif dtype == 1:
            found = walk(
                x, anchor, out, writes, n, pair, has_l1, has_l2, tl.bfloat16, OP, WRITES, READS_OLD, COLUMNS, ANCHORED
            )
        elif dtype == 2:
            found = walk(
                x, anchor, out, writes, n, pair, has_l1, has_l2, tl.float32, OP, WRITES, READS_OLD, COLUMNS, ANCHORED
            )
        elif SMALL:
            found = walk_double_or_small(
                x, anchor, out, writes, n, pair, has_l1, has_l2, dtype, OP, WRITES, READS_OLD, COLUMNS, ANCHORED
            )
        else:
            found = walk(
                x, anchor, out, writes, n, pair, has_l1, has_l2, tl.float64, OP, WRITES, READS_OLD, COLUMNS, ANCHORED
            )
        for column in tl.static_range(COLUMNS):
            tl.store(partials + c * COLUMNS + column, found[column])
    tl.debug_barrier()  # this program's partials before its ticket
    if tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == programs - 1:
        finalise(layout + 2 * chunk_count, partials, totals, slot_count, COLUMNS, LARGEST)
        tl.store(ticket, 0)
