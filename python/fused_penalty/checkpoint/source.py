"""A safetensors file, opened once: its entries, and their elements batch by batch.

It is read, not mapped: if a mapped file is truncated meanwhile, the process dies. All bytes come from one descriptor;
`check` tells whether the file is still the one that was opened.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .._core import dtypes
from .._core.errors import bad
from .names import printable

DTYPES = {row.safetensors: getattr(torch, row.name) for row in dtypes.TABLE}  # those that a kernel reads
ALIGNMENT = 8  # of each run of leaves in the buffer, bytes
LENGTH = struct.Struct("<Q")  # the size of the header, at the start of the file
KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


class Entry(NamedTuple):
    """A leaf as the header of its file describes it: `offset` is where its bytes start there, `size` its number of
    elements, `item` the bytes of each, 0 for a dtype without a kernel."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    file: Path
    size: int
    item: int

    @staticmethod
    def of(path: str, dtype: str, shape: Sequence[int], offset: int, file: Path) -> Entry:
        kind = DTYPES.get(dtype)
        return Entry(path, dtype, tuple(shape), offset, file, math.prod(shape), 0 if kind is None else kind.itemsize)


class Piece(NamedTuple):
    """A run of a leaf's elements; `row` is the leaf's place among those that are read, `offset` that in the file."""

    row: int
    entry: Entry
    start: int
    stop: int
    offset: int
    bytes: int

    @staticmethod
    def of(row: int, entry: Entry, start: int, stop: int) -> Piece:
        item = entry.item
        return Piece(row, entry, start, stop, entry.offset + start * item, (stop - start) * item)

    def twin(self, entry: Entry) -> Piece:
        """The same elements of another leaf."""
        return Piece.of(self.row, entry, self.start, self.stop)


class Source:
    """The open file; a context manager.

    Raises:
      FileNotFoundError, IsADirectoryError: there is no such file.
      ValueError: it is not a regular file, or not a complete safetensors file.
      OSError: it cannot be read; from `read` and `check` also: it is no longer the file that was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_kind(path)
        self._file = io.FileIO(path)
        try:
            self._opened = _identity(os.fstat(self._file.fileno()))
            self.entries = self._entries()
        except BaseException:
            self._file.close()
            raise
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def check(self) -> None:
        """Raise OSError unless the path still names the file that was opened, as it was then."""
        try:
            now = _identity(os.stat(self.path))
        except OSError:
            now = None
        if now != self._opened:
            raise self._changed()

    def read(self, pieces: Iterable[Piece]) -> list[Tensor]:
        """The elements of each piece, in memory that the next call reuses."""
        runs, end = [], 0
        for run in _runs(pieces):
            size = sum(piece.bytes for piece in run)
            runs.append((run, end, end + size))
            end += -(-size // ALIGNMENT) * ALIGNMENT
        if len(self._buffer) < end:
            self._buffer = torch.empty(end, dtype=torch.uint8)
        into = self._buffer.numpy().data
        found: list[Tensor] = []
        for run, at, to in runs:
            self._read(run[0].offset, into[at:to])
            elements = _elements(self._buffer[at:to], DTYPES[run[0].entry.dtype])
            found += elements.split([piece.stop - piece.start for piece in run])
        return found

    def _read(self, offset: int, into: memoryview) -> None:
        self._file.seek(offset)
        while len(into):
            n = self._file.readinto(into)
            if not n:
                raise self._changed()
            into = into[n:]

    def _entries(self) -> list[Entry]:
        """The leaves of the header, in the order of their bytes."""
        try:
            with safe_open(self.path, framework="np"):
                pass  # checks all of the header: syntax, dtypes, sizes, no gap, no overlap, the file's size
        except SafetensorError as e:
            raise self._unreadable(e) from None
        self.check()  # safe_open has opened it by its name once more
        length = bytearray(LENGTH.size)
        self._read(0, memoryview(length))
        header = bytearray(LENGTH.unpack(length)[0])
        self._read(LENGTH.size, memoryview(header))
        leaves = {path: leaf for path, leaf in json.loads(header).items() if path != "__metadata__"}
        base = LENGTH.size + len(header)
        return [
            Entry.of(path, leaf["dtype"], leaf["shape"], base + leaf["data_offsets"][0], self.path)
            for path, leaf in sorted(leaves.items(), key=lambda item: item[1]["data_offsets"])
        ]

    def _unreadable(self, reason: Exception) -> Exception:
        self._file.seek(0)
        if self._file.read(1) == b"{":  # no header is so long that its size starts like this and is right
            return bad(
                ValueError, "file", f"{printable(self.path)} is a JSON file, such as the index of a sharded checkpoint",
                "End its name in .json, or give one of the .safetensors files that it names",
            )  # fmt: skip
        return bad(
            ValueError, "file", f"{printable(self.path)} is not a complete safetensors file ({printable(reason)})",
            "Fetch it again if it was cut off, or convert it if it has another format",
        )  # fmt: skip

    def _changed(self) -> Exception:
        return bad(
            OSError, "file", f"{printable(self.path)} changed while it was read",
            "Run this again when nothing writes to it, or on a copy",
        )  # fmt: skip


def _runs(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces of one dtype whose bytes follow each other in the file, which are read in one go."""
    run: list[Piece] = []
    for piece in pieces:
        last = run[-1] if run else piece
        if run and (piece.offset != last.offset + last.bytes or piece.entry.dtype != last.entry.dtype):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _check_kind(path: Path) -> None:
    """Raise unless the path names a regular file. Called before opening, since opening a pipe would wait."""
    name = printable(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise bad(
            FileNotFoundError, "file", f"there is no {name}", "Give the path of a .safetensors file"
        ) from None  # fmt: skip
    if stat.S_ISDIR(mode):
        raise bad(IsADirectoryError, "file", f"{name} is a folder", "Give the folder itself if its files are meant")
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "not a regular file")
        raise bad(ValueError, "file", f"{name} is {kind}", "Give a .safetensors file; copy what comes from it into one")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _elements(raw: Tensor, dtype: torch.dtype) -> Tensor:
    if sys.byteorder == "big":  # files are little-endian
        raw = raw.view(-1, dtype.itemsize).flip(1).flatten()
    return raw.view(dtype)
