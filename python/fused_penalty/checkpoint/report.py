"""What a checkpoint holds, leaf by leaf: a safetensors file, memory-mapped, read once and never whole.

File -> entries -> pieces of at most BATCH bytes -> `stats`, one launch a batch -> rows, one a leaf.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .._core.errors import FLOATS, bad
from ..torch.verbs import stats

BATCH = 1 << 26  # bytes; each batch has a mapping of its own, so that its pages are given back before the next
ITEM_SIZE = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}  # the dtypes with a kernel, as safetensors calls them


@dataclass(frozen=True)
class Entry:
    """A leaf as the file's header describes it."""

    path: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


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
        skipped = [asdict(entry) | {"reason": reason} for entry, reason in self.skipped]
        return {"file": str(self.file), "leaves": [plain(r) for r in self.rows], "skipped": skipped, "total": total}


@dataclass(frozen=True)
class Piece:
    """A run of a leaf's elements."""

    row: Row
    start: int
    stop: int


def inspect(file: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Reads the file once; `progress` is told the bytes of each batch and those of the file's leaves.

    Raises:
      FileNotFoundError, IsADirectoryError: there is no such file.
      ValueError: it is no safetensors file, or a truncated one.
    """
    found = entries(file)
    rows = [Row(e.path, e.dtype, e.shape) for e in found if e.dtype in ITEM_SIZE]
    size = sum(math.prod(row.shape) * ITEM_SIZE[row.dtype] for row in rows)
    reason = f"no kernel for this dtype; there is one for {FLOATS}"
    for batch in batches(rows):
        with safe_open(file, framework="pt") as f:
            s = stats([f.get_tensor(piece.row.path).flatten()[piece.start : piece.stop] for piece in batch])
        for piece, *values in zip(batch, s.size, s.abs, s.square, s.max, s.zeros, s.nonfinite, strict=True):
            piece.row.add(*(v if isinstance(v, int) else v.item() for v in values))
        progress(sum((p.stop - p.start) * ITEM_SIZE[p.row.dtype] for p in batch), size)
    total = Row("total", "", ())
    for row in rows:
        total.add(row.size, row.abs, row.square, row.max, row.zeros, row.nonfinite)
    return Report(file, rows, [(e, reason) for e in found if e.dtype not in ITEM_SIZE], total)


def _nan_last(value: float) -> tuple[bool, float]:
    return math.isnan(value), value


def entries(file: Path) -> list[Entry]:
    """The leaves of the header, in the order of their bytes; no weight is read."""
    if not file.exists():
        raise bad(FileNotFoundError, "file", f"there is no {file}", "Give the path of a .safetensors file")
    if file.is_dir():
        raise bad(IsADirectoryError, "file", f"{file} is a folder", "Give one .safetensors file of it")
    try:
        with safe_open(file, framework="pt") as f:
            slices = {path: f.get_slice(path) for path in f.offset_keys()}
            return [Entry(path, s.get_dtype(), tuple(s.get_shape())) for path, s in slices.items()]
    except SafetensorError as e:
        raise bad(
            ValueError, "file", f"{file} is not a whole safetensors file ({e})",
            "Fetch it again if it was cut off, or convert it if it has another format",
        ) from None  # fmt: skip


def batches(rows: Iterable[Row]) -> Iterator[list[Piece]]:
    """The elements of all rows in runs, at most BATCH bytes together."""
    batch: list[Piece] = []
    room = BATCH
    for row in rows:
        start, item = 0, ITEM_SIZE[row.dtype]
        size = math.prod(row.shape)
        while start < size:
            stop = min(size, start + room // item)
            if stop > start:
                batch.append(Piece(row, start, stop))
                room -= (stop - start) * item
                start = stop
            if start < size:  # the batch is full
                yield batch
                batch, room = [], BATCH
    if batch:
        yield batch
