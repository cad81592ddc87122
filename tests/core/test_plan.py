"""The plan against a plain loop, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_penalty._core.dtypes import BITS, MASK, TABLE
from fused_penalty._core.plan import BOTH, CHUNK, MAX_OFFSET, SLOT_SHIFT, Plan, plan_of_layout

Leaf = st.tuples(
    st.sampled_from([0, 1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]),
    st.integers(0, len(TABLE) - 1),  # dtype
    st.integers(0, 9),  # slot
    st.integers(0, 3),  # rows
    st.integers(0, 3),  # terms
)


def decode(plan: Plan) -> list[tuple[int, ...]]:
    """(leaf, offset, length, dtype, terms, slot): the accessors of struct Chunk, in Python."""
    rows = plan.table.astype(np.uint64)
    span = rows[:, 0] | rows[:, 1] << np.uint64(32)
    return [
        (int(leaf), int(s) >> 24, int(s) & 0xFFFFFF, int(tag) & MASK, int(tag) >> BITS & BOTH, int(tag) >> SLOT_SHIFT)
        for s, leaf, tag in zip(span, rows[:, 2], rows[:, 3], strict=True)
    ]


@given(st.lists(Leaf, max_size=6))
def test_table_is_the_plain_loop(leaves: list[tuple[int, ...]]) -> None:
    plan = Plan(*(tuple(column) for column in zip(*leaves, strict=True))) if leaves else Plan((), (), (), (), ())
    expected = []
    for leaf, (size, dtype, slot, rows, terms) in enumerate(leaves):
        for row in range(rows):
            for start in range(0, size, CHUNK):
                length = min(CHUNK, size - start)
                expected.append((leaf, row * size + start, length, dtype, terms, slot + row))
    assert decode(plan) == sorted(expected, key=lambda c: c[-1])  # stable: by slot, then as the loop


def test_large_offsets() -> None:
    size = (1 << 33) + 5  # more elements than 32 bits count
    chunks = decode(Plan((size,), (2,), (0,), (1,), (BOTH,)))
    assert sum(c[2] for c in chunks) == size
    assert chunks[-1][1] + chunks[-1][2] == size
    with pytest.raises(ValueError, match="Split the leaf"):
        _ = Plan((MAX_OFFSET,), (2,), (0,), (1,), (BOTH,)).table


def test_plans_are_hashable_and_cached() -> None:
    layout = np.array([7 << BITS | 2, 5 << BITS | 1], np.uint64).tobytes()
    plan = plan_of_layout(layout, BOTH)
    assert plan is plan_of_layout(layout, BOTH)
    assert hash(plan) == hash(Plan((7, 5), (2, 1), (0, 1), (1, 1), (3, 3)))
    assert plan.slot_count == 2
