"""The files of a checkpoint, opened together: their entries, and elements batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from .._core.errors import bad
from .files import files_of
from .names import printable
from .source import Piece, Source


class Opened:
    """A context manager.

    Raises:
      FileNotFoundError, ValueError, OSError: As in `files_of` and `Source`; or two files have a leaf of one path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._sources = {file: stack.enter_context(Source(file)) for file in files_of(path)}
            self.entries = [e for source in self._sources.values() for e in source.entries]
            self.by_path = {e.path: e for e in self.entries}
            self._check_paths()
            self._stack = stack.pop_all()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raise OSError unless all files are still those that were opened."""
        for source in self._sources.values():
            source.check()

    def read(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """The elements of each piece, in memory that the next call reuses."""
        of_file: dict[Path, list[int]] = {}
        for i, piece in enumerate(pieces):
            of_file.setdefault(piece.entry.file, []).append(i)
        found: dict[int, Tensor] = {}
        for file, index in of_file.items():
            source = self._sources[file]
            found.update(zip(index, source.read([pieces[i] for i in index]), strict=True))
            source.check()
        return [found[i] for i in range(len(pieces))]

    def _check_paths(self) -> None:
        if len(self.by_path) == len(self.entries):
            return
        for e in self.entries:
            last = self.by_path[e.path]
            if last is not e:
                raise bad(
                    ValueError, "file",
                    f"{printable(e.file.name)} and {printable(last.file.name)} both have a leaf {printable(e.path)!r}",
                    "Give the files of one checkpoint, or one of these files",
                )  # fmt: skip
