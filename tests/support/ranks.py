"""Many checks in one start of several processes, which talk over the loopback through gloo.

A check is a function `module.name` of (rank, world), called on every rank. All ranks wait for each other after each;
after the first that fails none is run, since the ranks may then be at different collectives.
"""

from __future__ import annotations

import datetime
import importlib
import os
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SECONDS = 60  # for the start, and for each collective
OK = "ok"


def run(names: list[str], world: int, limit: float = 240) -> dict[str, str]:
    """The outcome of each check: `ok`, or what went wrong on which rank. No process outlives the call."""
    with tempfile.TemporaryDirectory() as folder:
        args = (names, world, folder)
        ranks: Any = mp.start_processes(_rank, args, nprocs=world, join=False, daemon=True, start_method="spawn")
        end = time.monotonic() + limit
        try:
            while not ranks.join(timeout=max(end - time.monotonic(), 0.1)):
                if time.monotonic() > end:
                    break
        finally:
            for process in ranks.processes:
                process.kill()
                process.join()
        return {name: _outcome(Path(folder), name, world) for name in names}


def _outcome(folder: Path, name: str, world: int) -> str:
    files = [folder / f"{name}.{rank}" for rank in range(world)]
    found = [f.read_text() if f.exists() else "it did not end, or an earlier check failed" for f in files]
    return OK if found == [OK] * world else "\n".join(f"rank {r}: {t}" for r, t in enumerate(found) if t != OK)


def _rank(rank: int, names: list[str], world: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    wait = datetime.timedelta(seconds=SECONDS)
    store = dist.FileStore(f"{folder}/store", world)
    store.set_timeout(wait)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=wait)
    for module in {name.rpartition(".")[0] for name in names}:
        importlib.import_module(module)  # torch's own warnings at import are not ours
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Guards may run slower on Python 3.13.0")  # torch's compiler, of one release
    for name in names:
        outcome = OK
        module, _, function = name.rpartition(".")
        try:
            getattr(importlib.import_module(module), function)(rank, world)
        except Exception:
            outcome = traceback.format_exc()
        Path(folder, f"{name}.{rank}").write_text(outcome)
        store.set(f"{name}.{rank}", outcome)
        if any(store.get(f"{name}.{r}") != OK.encode() for r in range(world)):
            break
    dist.destroy_process_group()
