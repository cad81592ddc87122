"""Sets of bytes as boxes: whether views that are cut from common arrays meet, in n·log n.

An address is written in mixed radix: a // R, then the rest by the next smaller stride, and so on. A view whose strides
are those radices is a box of digits, whatever its place; two boxes meet if they meet along every axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Dims = tuple[tuple[int, int], ...]  # (stride, length), strides falling, each at least as long as what it steps over


class OutOfWork(Exception):
    """These are not such views, or too few of them are."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the tensor at position `owner`: digits found so far, and what is left of the address."""

    owner: int
    digits: tuple[tuple[int, int], ...]  # half-open ranges
    base: int
    dims: Dims
    run: int

    def range(self, axis: int) -> tuple[int, int]:
        """The range along a digit; the axis after the last digit is what is left of the address."""
        if axis < len(self.digits):
            return self.digits[axis]
        return self.base, self.base + sum(step * (n - 1) for step, n in self.dims) + self.run


def meet(pieces: list[Piece], written: Sequence[bool]) -> tuple[int, int] | None:
    """The owners of two pieces that share a byte, the first of them written. A digit means the same in all pieces."""
    work = 20_000 + 200 * len(pieces)
    groups = [pieces]
    while groups:
        group = groups.pop()
        if len(group) < 2 or not any(written[p.owner] for p in group):
            continue
        axes = len(group[0].digits) + 1
        work -= len(group) * axes
        if work < 0:
            raise OutOfWork
        for axis in range(axes):
            parts = _split(group, axis)
            if len(parts) > 1:
                groups += parts
                break
        else:
            group = _without_common(group)
            stride = max((p.dims[0][0] for p in group if p.dims), default=0)
            if stride:
                unfolded = []
                origin = min(p.base for p in group)
                for p in group:
                    for part in _unfold(p, origin, stride):
                        unfolded.append(part)
                        if len(unfolded) > work:
                            raise OutOfWork
                groups.append(unfolded)
            elif (found := _pair(group, written, work)) is not None:
                return found
    return None


def _split(group: list[Piece], axis: int) -> list[list[Piece]]:
    """Split into parts that do not meet along the axis."""
    parts: list[list[Piece]] = []
    reached = None
    for (low, high), p in sorted(((p.range(axis), p) for p in group), key=lambda pair: pair[0]):
        if reached is None or low >= reached:
            parts.append([])
            reached = high
        parts[-1].append(p)
        reached = max(reached, high)
    return parts


def _without_common(group: list[Piece]) -> list[Piece]:
    """Drop the digits along which all pieces meet."""
    axes = range(len(group[0].digits))
    kept = [k for k in axes if max(p.digits[k][0] for p in group) >= min(p.digits[k][1] for p in group)]
    if len(kept) == len(axes):
        return group
    return [Piece(p.owner, tuple(p.digits[k] for k in kept), p.base, p.dims, p.run) for p in group]


def _pair(group: list[Piece], written: Sequence[bool], work: int) -> tuple[int, int] | None:
    """Test, pair by pair, pieces that no axis splits: those that are near along the first axis."""
    axes = len(group[0].digits) + 1
    open_: list[Piece] = []
    for p in sorted(group, key=lambda p: p.range(0)):
        low = p.range(0)[0]
        open_ = [q for q in open_ if q.range(0)[1] > low]
        work -= len(open_)
        if work < 0:
            raise OutOfWork
        for q in open_:
            ranges = [(p.range(k), q.range(k)) for k in range(axes)]
            if (written[p.owner] or written[q.owner]) and all(a[0] < b[1] and b[0] < a[1] for a, b in ranges):
                first, second = sorted((p.owner, q.owner))
                return (first, second) if written[first] else (second, first)
        open_.append(p)
    return None


def _unfold(p: Piece, origin: int, stride: int) -> Iterator[Piece]:
    """Add a digit, by `stride`, which no stride of p exceeds; what is left lies within [0, stride)."""
    offset, rows, dims = p.base - origin, 1, p.dims
    if dims and dims[0][0] == stride:
        rows, dims = dims[0][1], dims[1:]
    for low, high, base, left, run in _fold(offset, dims, p.run, stride):
        # with rows > 1 what is repeated fits into the stride: every part of it lies in one row
        yield Piece(p.owner, (*p.digits, (low, high + rows - 1)), base, left, run)


def _fold(offset: int, dims: Dims, run: int, stride: int) -> Iterator[tuple[int, int, int, Dims, int]]:
    """The parts of a footprint in rows of `stride` bytes: (first row, end of the rows, place in a row, dims, run)."""
    row, place = divmod(offset, stride)
    reach = sum(step * (n - 1) for step, n in dims) + run
    if place + reach <= stride:
        yield row, row + 1, place, dims, run
    elif not dims:
        head = stride - place
        yield row, row + 1, place, (), head
        full, tail = divmod(run - head, stride)
        if full:
            yield row + 1, row + 1 + full, 0, (), stride
        if tail:
            yield row + 1 + full, row + 2 + full, 0, (), tail
    else:
        (step, n), within = dims[0], dims[1:]
        inner = reach - step * (n - 1)
        done = 0
        while done < n:
            row, place = divmod(offset + done * step, stride)
            fit = min(n - done, (stride - inner - place) // step + 1) if place + inner <= stride else 0
            if fit:
                yield row, row + 1, place, ((step, fit), *within) if fit > 1 else within, run
            else:
                yield from _fold(offset + done * step, within, run, stride)
            done += fit or 1
