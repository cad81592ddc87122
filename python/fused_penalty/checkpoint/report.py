"""What a checkpoint holds, leaf by leaf: a safetensors file, read once and never held whole.

File -> entries -> batches of pieces, at most BATCH bytes each -> `stats`, one launch per batch -> rows, one per leaf.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from .._core.dtypes import DTYPES as NAMES
from .._core.dtypes import listed
from ..torch.summaries import stats
from .source import DTYPES, Entry, Piece, Source

BATCH = 1 << 26  # bytes

Progress: TypeAlias = Callable[[int, int], None]
"""Told the bytes that were read since the last call, and those of all leaves together."""


@dataclass
class Row:
    """A leaf, or the total: Σ|x|, Σx², max|x| (NaN if any is NaN), and how many zeros and non-finite numbers."""

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
    """The rows in the file's order, the leaves that were skipped, with the reasons, and the total."""

    file: Path
    rows: list[Row]
    skipped: list[tuple[Entry, str]]
    total: Row

    def sorted(self, by: str) -> Report:
        """Return the report with its rows by path, or by a number, largest (and NaN) first."""
        if by == "path":
            rows = sorted(self.rows, key=lambda row: row.path)
        else:
            rows = sorted(self.rows, key=lambda row: _nan_last(getattr(row, by)), reverse=True)
        return replace(self, rows=rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON, which has no NaN or infinity: these become the strings "nan" and "inf"."""

        def jsonable(row: Row) -> dict[str, Any]:
            return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}

        total = {k: v for k, v in jsonable(self.total).items() if k not in ("path", "dtype", "shape")}
        skipped = [{"path": e.path, "dtype": e.dtype, "shape": e.shape, "reason": why} for e, why in self.skipped]
        return {"file": str(self.file), "leaves": [jsonable(r) for r in self.rows], "skipped": skipped, "total": total}


def inspect(file: Path, progress: Progress = lambda done, total: None) -> Report:
    """Compute Σ|x|, Σx², max|x|, zeros and non-finite numbers of each leaf of a safetensors file.

    The file is read once, in batches, and never held whole.

    Args:
      file: Path of the file. Leaves of dtype float16, bfloat16, float32, float64, float8_e4m3fn and float8_e5m2, of any
        shape, are reported; others are listed as skipped, with the reason.
      progress: Called after each batch with its size and that of all reported leaves, in bytes.

    Returns:
      A `Report`: a row for each leaf, in the file's order, the skipped ones, and the total.

    Raises:
      FileNotFoundError, IsADirectoryError: There is no such file.
      ValueError: It is not a regular file, or not a complete safetensors file.
      OSError: It cannot be read, or it changed meanwhile.

    Example:
      >>> import tempfile, torch
      >>> from safetensors.torch import save_file
      >>> from fused_penalty.checkpoint.report import inspect
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "model.safetensors")
      ...     save_file({"w": torch.tensor([3.0, -4.0, 0.0])}, file)
      ...     report = inspect(file)
      >>> row = report.rows[0]
      >>> row.path, row.dtype, row.shape, row.abs, row.square, row.max, row.zeros
      ('w', 'F32', (3,), 7.0, 25.0, 4.0, 1)
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
    reason = f"no kernel for this dtype; there is one for {listed(NAMES)}"
    return Report(file, rows, [(e, reason) for e in source.entries if e.dtype not in DTYPES], total)


def _nan_last(value: float) -> tuple[bool, float]:
    return math.isnan(value), value


def batches(entries: Iterable[Entry]) -> Iterator[list[Piece]]:
    """Batches of runs of the entries' elements, at most BATCH bytes per batch."""
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
