"""One contender in a process of its own, as a line of JSON.

    python -m benchmarks.harness.probe VERB FRAMEWORK NAME MODEL DTYPE

Its first call (trace, compile and run) and the memory that this takes are only true in a fresh process: caches, threads
and freed pages of earlier cases would hide both.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")

import psutil

from benchmarks.contenders.table import FORWARD, GRADIENT, OPTIMIZER
from benchmarks.models.cases import constant, load


class Peak:
    """Resident memory over what it was at the start, at its highest, watched from a thread. Only a first call shows
    it: later ones find freed pages that the allocator kept."""

    def __enter__(self) -> Peak:
        self._process = psutil.Process()
        self._start = self._highest = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._highest = max(self._highest, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._highest = max(self._highest, self._process.memory_info().rss)
        self._done.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return self._highest - self._start


def main(verb: str, framework: str, name: str, model: str, dtype: str) -> None:
    tree = load(model, dtype, constant)
    assert not isinstance(tree, str), tree
    (row,) = (r for r in FORWARD + GRADIENT + OPTIMIZER if (r.verb, r.framework, r.name) == (verb, framework, name))
    importlib.import_module(f"fused_penalty.{framework}")  # importing is not part of a first call
    getattr(tree, framework)
    with Peak() as peak:
        start = time.perf_counter()
        kept = row.build(tree)()  # the result stays alive until the peak is read
        first = time.perf_counter() - start
    del kept
    print(json.dumps({"first_seconds": first, "peak_bytes": peak.bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
