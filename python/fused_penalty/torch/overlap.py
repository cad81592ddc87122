"""Which elements share memory: exactly, without listing them, and with bounded work.

`repeats`   does one tensor hold an element twice?
`shared`    do two tensors of a list, at least one of them written, share a byte?

Both know strides only; nothing is read or allocated. What cannot be decided within the bound raises `Undecided`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.exceptions import TooHardError

from .boxes import OutOfWork, Piece, meet

MAX_WORK = 100_000  # steps of NumPy's solver for one equation about one tensor: milliseconds
MAX_PAIRS, PAIR_WORK = 2_000, 10_000  # pairs that go to the solver, and its steps for each
MAX_DIMS = 32  # of a NumPy array, in the oldest version that we take

Dims = tuple[tuple[int, int], ...]  # (stride, length)


class Undecided(Exception):
    """Two tensors of the list (or one, with itself) of which it is not known whether they share an element."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first, second)
        self.first, self.second = first, second


@dataclass(frozen=True, slots=True)
class Footprint:
    """The bytes of a tensor as a set: runs of `run` bytes at base + Σ i_d·stride_d, strides falling."""

    base: int
    dims: Dims
    run: int
    nested: bool  # every stride is at least as long as all that it steps over, so no byte is covered twice

    @property
    def end(self) -> int:
        return self.base + sum(step * (n - 1) for step, n in self.dims) + self.run


def footprint(address: int, shape: Sequence[int], strides: Sequence[int], width: int) -> Footprint | None:
    """None for an empty tensor. Strides are in elements and not negative, as torch has them."""
    if 0 in shape:
        return None
    run, nested, reach = width, True, 0
    dims: list[tuple[int, int]] = []
    for step, n in sorted((s * width, n) for s, n in zip(strides, shape, strict=True) if n > 1 and s):
        if not dims and step <= run:
            run += step * (n - 1)  # side by side, or overlapping: one longer run
        elif dims and step == dims[-1][0] * dims[-1][1]:
            dims[-1] = (dims[-1][0], dims[-1][1] * n)
        else:
            nested = nested and step >= reach + run
            dims.append((step, n))
        reach = sum(s * (m - 1) for s, m in dims)
    return Footprint(address, tuple(reversed(dims)), run, nested)


def repeats(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two indices mean one element, that is Σ k_d·stride_d = 0 for some |k_d| < n_d, not all of them 0."""
    if 0 in shape:
        return False
    dims = sorted((step, n) for step, n in zip(strides, shape, strict=True) if n > 1)
    reach, suspects = 0, []
    for d, (step, n) in enumerate(dims):
        if step <= reach:
            suspects.append(d)
        reach += step * (n - 1)
    if not suspects:
        return bool(dims) and dims[0][0] == 0
    if dims[0][0] == 0 or _product(n for _, n in dims) > reach + 1:  # more indices than there are places in memory
        return True
    # Of a solution, take the largest stride with k_d != 0, and k_d > 0: then k_d steps of it lead from one index of the
    # smaller strides to another.
    for d in suspects:
        within, (step, n) = tuple(dims[:d]), dims[d]
        if _share(Footprint(step, ((step, n - 1), *within), 1, False), Footprint(0, within, 1, False), MAX_WORK, 0, 0):
            return True
    return False


def shared(prints: Sequence[Footprint | None], written: Sequence[bool]) -> tuple[int, int] | None:
    """Positions of two tensors that share a byte, the first of them written; None if there are none.

    Views that are cut from one array along its dimensions (columns, blocks, every second row, tiles) are told apart in
    n·log n. Other strides go to NumPy's solver, pair by pair.
    """
    known = [i for i, p in enumerate(prints) if p is not None]
    easy = [i for i in known if (p := prints[i]) is not None and p.nested]
    hard = set(known).difference(easy)
    try:
        found = meet([Piece(i, (), p.base, p.dims, p.run) for i in easy if (p := prints[i]) is not None], written)
        if found is not None:
            return found
    except OutOfWork:
        hard = set(known)
    for count, (a, b) in enumerate(_near(prints, known, hard, written)):
        p, q = prints[a], prints[b]
        assert p is not None
        assert q is not None
        if count == MAX_PAIRS:
            raise Undecided(a, b)
        if _share(p, q, PAIR_WORK, a, b):
            return a, b
    return None


def _near(
    prints: Sequence[Footprint | None], known: list[int], hard: set[int], written: Sequence[bool]
) -> Iterator[tuple[int, int]]:
    """Pairs whose spans overlap, one of the two in `hard` and the first written."""
    spans = sorted((p.base, p.end, i) for i in known if (p := prints[i]) is not None)
    open_: list[tuple[int, int]] = []
    for base, end, i in spans if hard else ():
        open_ = [(e, j) for e, j in open_ if e > base]
        for _, j in open_:
            if (i in hard or j in hard) and (written[i] or written[j]):
                a, b = sorted((i, j))
                yield (a, b) if written[a] else (b, a)
        open_.append((end, i))


def _share(p: Footprint, q: Footprint, work: int, first: int, second: int) -> bool:
    if max(len(p.dims), len(q.dims)) >= MAX_DIMS:
        raise Undecided(first, second)
    limit: Any = work  # NumPy's stubs know only two of its values
    try:
        return np.shares_memory(_shadow(p), _shadow(q), max_work=limit)
    except (TooHardError, OverflowError):
        raise Undecided(first, second) from None


class _Shadow:
    """A tensor's strides and address as an array of NumPy's, whose solver takes only these. The memory may be a GPU's:
    the elements are never read."""

    def __init__(self, p: Footprint) -> None:
        dims = (*p.dims, (1, p.run))
        self.__array_interface__ = {
            "version": 3,
            "data": (_FAR + p.base, True),
            "shape": tuple(n for _, n in dims),
            "strides": tuple(step for step, _ in dims),
            "typestr": "|V1",
        }


_FAR = 1 << 12  # to NumPy the address 0 means that there is none


def _shadow(p: Footprint) -> np.ndarray:
    return np.asarray(_Shadow(p))


def _product(lengths: Iterator[int]) -> int:
    total = 1
    for n in lengths:
        total *= n
    return total
