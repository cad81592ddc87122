"""What a checkpoint holds, leaf by leaf: safetensors files, read once and never held whole.

Files -> entries -> batches of pieces, at most BATCH bytes each -> `stats`, one launch per batch -> rows, one per leaf.
With another checkpoint to compare it with, the numbers are those of the differences.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._core.dtypes import DTYPES as NAMES
from .._core.dtypes import listed
from ..torch.summaries import stats
from .opened import Opened
from .source import DTYPES, Entry, Piece

BATCH = 1 << 26  # bytes
NO_KERNEL = f"no kernel for this dtype; there is one for {listed(NAMES)}"

Progress: TypeAlias = Callable[[int, int], None]
"""Told the bytes that were read since the last call, and those of all leaves together."""


@dataclass
class Row:
    """A leaf, a group of leaves (its shape is None), or the total: Σ|x|, Σx², max|x| (NaN if any is NaN), and how many
    zeros and non-finite numbers."""

    path: str
    dtype: str
    shape: tuple[int, ...] | None
    leaves: int = 1
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

    def add_row(self, row: Row) -> None:
        self.add(row.size, row.abs, row.square, row.max, row.zeros, row.nonfinite)


@dataclass(frozen=True)
class Report:
    """The rows in the files' order, the leaves that were skipped, with the reasons, and the total."""

    file: Path
    rows: list[Row]
    skipped: list[tuple[Entry, str]]
    total: Row
    against: Path | None = None

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
        named = {"file": str(self.file)} | ({} if self.against is None else {"against": str(self.against)})
        return {**named, "leaves": [jsonable(r) for r in self.rows], "skipped": skipped, "total": total}


def inspect(file: Path, progress: Progress = lambda done, total: None, against: Path | None = None) -> Report:
    """Compute Σ|x|, Σx², max|x|, zeros and non-finite numbers of each leaf of a checkpoint.

    Its files are read once, in batches, and never held whole.

    Args:
      file: Path of a safetensors file, of the index of a sharded checkpoint, or of a folder with such files. Leaves of
        dtype float16, bfloat16, float32, float64, float8_e4m3fn and float8_e5m2, of any shape, are reported; others are
        listed as skipped, with the reason.
      progress: Called after each batch with its size and that of all reported leaves, in bytes.
      against: Path of another checkpoint. The numbers are then those of the differences, x - y for the leaves x of
        `file` and y of `against` with the same path, computed in the wider dtype of both; leaves without a twin of the
        same shape are listed as skipped.

    Returns:
      A `Report`: a row for each leaf, in the files' order, the skipped ones, and the total.

    Raises:
      FileNotFoundError: There is no such file, or a file of the index is missing.
      ValueError: It is not a regular file, not a complete safetensors file or not an index, or two files have a leaf of
        the same path.
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
    with Opened(file) as own, nullcontext() if against is None else Opened(against) as other:
        chosen, skipped = _chosen(own, other)
        twins = [e if other is None else other.by_path[e.path] for e in chosen]
        rows = [
            Row(e.path, e.dtype if e.dtype == twin.dtype else f"{e.dtype}-{twin.dtype}", e.shape)
            for e, twin in zip(chosen, twins, strict=True)
        ]
        size = sum(e.size * e.item for e in chosen)
        for batch in batches(chosen):
            leaves, anchors = own.read(batch), None
            if other is not None:
                its = other.read([piece.twin(twins[piece.row]) for piece in batch])
                leaves, anchors = map(list, zip(*map(_alike, leaves, its), strict=True))
            s = stats(leaves, anchor=anchors)
            columns = (column.tolist() for column in (s.abs, s.square, s.max, s.zeros, s.nonfinite))
            for piece, *values in zip(batch, s.size, *columns, strict=True):
                rows[piece.row].add(*values)
            progress(sum(piece.bytes for piece in batch), size)
        own.check()
        if other is not None:
            other.check()
    total = Row("total", "", None, leaves=len(rows))
    for row in rows:
        total.add_row(row)
    return Report(file, rows, skipped, total, against)


def _chosen(own: Opened, other: Opened | None) -> tuple[list[Entry], list[tuple[Entry, str]]]:
    """The leaves that can be counted, or compared, and the others with the reason."""
    chosen, skipped = [], []
    for e in own.entries:
        twin = e if other is None else other.by_path.get(e.path)
        reason = None
        if e.dtype not in DTYPES or (twin is not None and twin.dtype not in DTYPES):
            reason = NO_KERNEL
        elif twin is None:
            reason = "only in the first"
        elif twin.shape != e.shape:
            reason = f"its shape is {list(twin.shape)} in the second"
        if reason is None:
            chosen.append(e)
        else:
            skipped.append((e, reason))
    if other is not None:
        skipped += [(e, "only in the second") for e in other.entries if e.path not in own.by_path]
    return chosen, skipped


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the same dtype, which holds all numbers of either."""
    if x.dtype == y.dtype:
        return x, y
    wide = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    return x.to(wide), y.to(wide)


def _nan_last(value: float) -> tuple[bool, float]:
    return math.isnan(value), value


def batches(entries: Iterable[Entry]) -> Iterator[list[Piece]]:
    """Batches of runs of the entries' elements, at most BATCH bytes per batch."""
    batch: list[Piece] = []
    room = BATCH
    for row, entry in enumerate(entries):
        start = 0
        while start < entry.size:
            piece = Piece.of(row, entry, start, min(entry.size, start + room // entry.item))
            if piece.bytes:
                batch.append(piece)
                room -= piece.bytes
                start = piece.stop
            if start < entry.size:  # the batch is full
                yield batch
                batch, room = [], BATCH
    if batch:
        yield batch
