"""Tables in device memory, by content: uploaded when new, reused while the same.

A table is looked up by what it holds, so it cannot be stale: other addresses make another table. Each belongs to the
stream it was made on, since the allocator hands freed memory to later work of the same stream only; so a table may be
dropped while a launch still reads it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._core.errors import bad


@dataclass(frozen=True)
class Place:
    """Where a launch runs."""

    device: torch.device
    stream: int
    capturing: bool  # into a graph

    @property
    def reuses_memory(self) -> bool:
        """Whether launches are serialised and run to completion, so that one may rely on what the last one left.
        Graphs may run concurrently, and the interpreter may be interrupted."""
        return not self.capturing and self.device.type != "cpu"

    @staticmethod
    def current(device: torch.device) -> Place:
        if device.type == "cpu":  # Triton's interpreter
            return Place(device, 0, False)
        capturing = getattr(torch.get_device_module(device), "is_current_stream_capturing", lambda: False)
        return Place(device, torch.accelerator.current_stream(device).stream_id, capturing())


class Tables:
    """The tables used last, at most `size` of them for all streams.

    `hint`: what else the user can do when a capture needs a new table.
    """

    def __init__(self, size: int, hint: str = "") -> None:
        self._size, self._hint = size, hint
        self._known: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()
        self._kept: dict[tuple[Any, ...], Tensor] = {}  # read by graphs, which may be replayed at any time
        self._lock = threading.Lock()
        self.uploads = 0

    def find(self, place: Place, key: Hashable, words: Callable[[], np.ndarray]) -> Tensor:
        """The table of `key`, int64; `words` makes its contents.

        Raises RuntimeError if the table is new while a graph is captured: the copy from the host would be captured,
        too, and replayed from freed memory.
        """
        with self._lock:
            if place.capturing:
                return self._for_a_graph((place.device, key))
            at = (place.device, key, place.stream)
            table = self._known.get(at)
            if table is not None:
                self._known.move_to_end(at)
                return table
            table = self._known[at] = _upload(words(), place.device)
            self.uploads += 1
            if len(self._known) > self._size:
                self._known.popitem(last=False)
            return table

    def _for_a_graph(self, at: tuple[Any, ...]) -> Tensor:
        """A table that another stream made: a capture has its own stream, and begins with a synchronisation."""
        if at not in self._kept:
            table = next((t for known, t in reversed(self._known.items()) if known[:2] == at), None)
            if table is None:
                raise bad(
                    RuntimeError, "params", "sizes or addresses that were not seen before the capture of a graph",
                    f"Call once before the capture, with the same tensors and strengths. {self._hint}".strip(),
                )  # fmt: skip
            self._kept[at] = table
        return self._kept[at]


def _upload(words: np.ndarray, device: torch.device) -> Tensor:
    """One asynchronous copy; the allocator of pinned memory keeps the source until it is over."""
    here = device.type == "cpu"
    host = torch.empty(len(words), dtype=torch.int64, device="cpu", pin_memory=not here)
    host.numpy()[:] = words
    return host if here else host.to(device, non_blocking=True)
