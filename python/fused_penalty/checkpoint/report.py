"""What a checkpoint holds, leaf by leaf: a safetensors file, read once and never whole.

File -> entries -> batches of pieces, at most BATCH bytes each -> `stats`, one launch per batch -> rows, one per leaf.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .._core.errors import FLOATS
from ..torch.verbs import stats
from .source import DTYPES, Entry, Piece, Source

BATCH = 1 << 26  # bytes


@dataclass
class Row:
    """A leaf, or the total: Σ|x|, Σx², max|x| (NaN if any is NaN), how many zeros and non-finite ones."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    size: int = 0
    abs: float = 0.0
    square: float = 0.0
    max: float = 0.0
    zeros: int = 0
    nonfinite: int = 0

    def add(self, size: int, abs: float, square: float, max: float, zeros: int, nonfinite: int) -> None:
        self.size += size
        self.abs += abs
        self.square += square
        self.max = math.nan if math.isnan(self.max) or math.isnan(max) else builtins.max(self.max, max)
        self.zeros += zeros
        self.nonfinite += nonfinite


@dataclass(frozen=True)
class Report:
    """The rows in the order of the file, the leaves without a kernel with the reason, and the total."""

    file: Path
    rows: list[Row]
    skipped: list[tuple[Entry, str]]
    total: Row

    def sorted(self, by: str) -> Report:
        """The rows by path, or by a number with the largest (and NaN) first."""
        if by == "path":
            rows = sorted(self.rows, key=lambda row: row.path)
        else:
            rows = sorted(self.rows, key=lambda row: _nan_last(getattr(row, by)), reverse=True)
        return replace(self, rows=rows)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no NaN and no infinity: these become the strings "nan" and "inf"."""

        def plain(row: Row) -> dict[str, Any]:
            return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}

        total = {k: v for k, v in plain(self.total).items() if k not in ("path", "dtype", "shape")}
        skipped = [{"path": e.path, "dtype": e.dtype, "shape": e.shape, "reason": why} for e, why in self.skipped]
        return {"file": str(self.file), "leaves": [plain(r) for r in self.rows], "skipped": skipped, "total": total}


def inspect(file: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Reads the file once; `progress` is told the bytes of each batch and those of the file's leaves.

    Raises:
      FileNotFoundError, IsADirectoryError: there is no such file.
      ValueError: it is not a regular file, or not a whole safetensors file.
      OSError: it cannot be read, or it changed meanwhile.
    """
    with Source(file) as source:
        chosen = [e for e in source.entries if e.dtype in DTYPES]
        rows = [Row(e.path, e.dtype, e.shape) for e in chosen]
        size = sum(e.size * e.item for e in chosen)
        for batch in batches(chosen):
            leaves = source.read(batch)
            source.check()
            s = stats(leaves)
            for piece, *values in zip(batch, s.size, s.abs, s.square, s.max, s.zeros, s.nonfinite, strict=True):
                rows[piece.row].add(*(v if isinstance(v, int) else v.item() for v in values))
            progress(sum(piece.bytes for piece in batch), size)
        source.check()
    total = Row("total", "", ())
    for row in rows:
        total.add(row.size, row.abs, row.square, row.max, row.zeros, row.nonfinite)
    reason = f"no kernel for this dtype; there is one for {FLOATS}"
    return Report(file, rows, [(e, reason) for e in source.entries if e.dtype not in DTYPES], total)


def _nan_last(value: float) -> tuple[bool, float]:
    return math.isnan(value), value


def batches(entries: Iterable[Entry]) -> Iterator[list[Piece]]:
    """The elements of all entries in runs, at most BATCH bytes together."""
    batch: list[Piece] = []
    room = BATCH
    for row, entry in enumerate(entries):
        start = 0
        while start < entry.size:
            piece = Piece(row, entry, start, min(entry.size, start + room // entry.item))
            if piece.bytes:
                batch.append(piece)
                room -= piece.bytes
                start = piece.stop
            if start < entry.size:  # the batch is full
                yield batch
                batch, room = [], BATCH
    if batch:
        yield batch
