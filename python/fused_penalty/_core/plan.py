"""Leaf sizes and dtypes -> Plan: which chunk of which leaf adds to which sum. NumPy only.

A *slot* is one row of totals (Σ|x|, Σx², ...). The caller maps leaves to slots: one per leaf, one per distinct
strength, or (under vmap) one per row of a batched leaf. The launchers know nothing but chunks and slots;
`kernels/chunks.h` is the other reader of this layout.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from . import dtypes

# Elements of a chunk: a CPU's prefetcher likes long runs; on a GPU no block should still run when the others are done.
CHUNK, GPU_CHUNK = 1 << 16, 1 << 14
SLOT_SHIFT = dtypes.BITS + 2  # in a chunk's tag: dtype, two terms, slot
MAX_OFFSET, MAX_SLOTS = 1 << 40, 1 << (32 - SLOT_SHIFT)

L1, L2 = 1, 2  # terms of a leaf: a bit that is not set is a strength that is statically zero
BOTH = L1 | L2


@dataclass(frozen=True)
class Plan:
    """The chunk layout of a list of leaves; hashable, so that it can key a cache.

    Leaf i has `rows[i]` rows of `sizes[i]` elements; row r adds to slot `slots[i] + r`.
    """

    sizes: tuple[int, ...]
    dtypes: tuple[int, ...]  # their numbers in the table of dtypes
    slots: tuple[int, ...]
    rows: tuple[int, ...]
    terms: tuple[int, ...]
    chunk: int = CHUNK  # elements of a chunk, to suit the launcher's device

    @functools.cached_property
    def slot_count(self) -> int:
        return max((s + r for s, r in zip(self.slots, self.rows, strict=True)), default=0)

    @functools.cached_property
    def has_small(self) -> bool:
        """Whether the elements of some leaf have 8 bits."""
        return any(dtypes.TABLE[d].bytes == 1 for d in self.dtypes)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """(chunks, 4) uint32: struct Chunk of kernels/chunks.h, sorted by slot, so that the partial sums of a slot
        are adjacent."""
        sizes, rows = np.array(self.sizes, np.int64), np.array(self.rows, np.int64)
        assert 0 < self.chunk < 1 << 24
        if (sizes * rows >= MAX_OFFSET).any() or self.slot_count > MAX_SLOTS:
            raise ValueError(
                f"params: a leaf of {MAX_OFFSET:,} elements or more, or more than {MAX_SLOTS:,} sums. "
                "Split the leaf or map over fewer rows"
            )
        per_row = -(-sizes // self.chunk)
        counts = per_row * rows
        leaf = np.repeat(np.arange(len(sizes)), counts)
        index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        row, chunk = np.divmod(index, np.maximum(per_row, 1)[leaf])
        start = chunk * self.chunk
        length = np.minimum(self.chunk, sizes[leaf] - start)
        span = ((row * sizes[leaf] + start) << 24 | length).astype(np.uint64)
        slot = np.array(self.slots, np.int64)[leaf] + row
        kind = np.array(self.terms, np.int64)[leaf] << dtypes.BITS | np.array(self.dtypes, np.int64)[leaf]
        table = np.empty((len(leaf), 4), np.uint32)
        table[:, 0] = span & 0xFFFFFFFF
        table[:, 1] = span >> np.uint64(32)
        table[:, 2] = leaf
        table[:, 3] = slot << SLOT_SHIFT | kind
        return table[np.argsort(slot, kind="stable")]


@functools.lru_cache(maxsize=256)
def plan_of_layout(layout: bytes, terms: tuple[int, ...] | int, chunk: int = CHUNK) -> Plan:
    """The plan with one slot per leaf, from the bytes of `layout_of` (kernels/chunks.h) that the reader gives."""
    words = np.frombuffer(layout, np.uint64)
    n = len(words)
    return Plan(
        tuple((words >> np.uint64(dtypes.BITS)).tolist()),
        tuple((words & np.uint64(dtypes.MASK)).tolist()),
        tuple(range(n)),
        (1,) * n,
        terms if isinstance(terms, tuple) else (terms,) * n,
        chunk,
    )
