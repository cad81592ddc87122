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
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .._core import dtypes
from .._core.errors import bad
from .names import printable

DTYPES = {row.safetensors: getattr(torch, row.name) for row in dtypes.TABLE}  # those that a kernel reads
ALIGNMENT = 8  # of each leaf in the buffer, bytes
LENGTH = struct.Struct("<Q")  # the size of the header, at the start of the file
KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True)
class Entry:
    """A leaf as the header of its file describes it; `offset` is where its bytes start there."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    file: Path

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def item(self) -> int:
        """Bytes per element, of a dtype with a kernel."""
        return DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Piece:
    """A run of a leaf's elements; `row` is the leaf's place among those that are read."""

    row: int
    entry: Entry
    start: int
    stop: int

    @cached_property
    def bytes(self) -> int:
        return (self.stop - self.start) * self.entry.item


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
        spans, end = [], 0
        for piece in pieces:
            spans.append((piece, end))
            end += -(-piece.bytes // ALIGNMENT) * ALIGNMENT
        if len(self._buffer) < end:
            self._buffer = torch.empty(end, dtype=torch.uint8)
        into = self._buffer.numpy().data
        found = []
        for piece, at in spans:
            entry = piece.entry
            self._read(entry.offset + piece.start * entry.item, into[at : at + piece.bytes])
            found.append(_elements(self._buffer[at : at + piece.bytes], DTYPES[entry.dtype]))
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
            Entry(path, leaf["dtype"], tuple(leaf["shape"]), base + leaf["data_offsets"][0], self.path)
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
