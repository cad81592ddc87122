"""What the numbers depend on: the machine, the versions, and who else was at work."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("fused-penalty", "jax", "jaxlib", "torch", "optax", "numpy", "pytest-benchmark")
QUIET = 0.1  # cores that others may use


def describe() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def caption(described: dict[str, Any]) -> str:
    others = described["cores_used_by_others"]
    noise = f"; NOISY, other programs used {others:.2g} cores" if others > QUIET else ""
    return f"{described['cpu']}, {described['cores']} cores{noise}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


class Others:
    """How many cores other programs used since this was made, on average. It matters: one busy core makes every
    parallel region of torch wait for it, and a naive sum of hundreds of them gets slower by a factor of ten, which
    would flatter us."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float:
        seconds, busy = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return max(0.0, busy / seconds)

    @staticmethod
    def _now() -> tuple[float, float]:
        all_of_it = psutil.cpu_times()
        busy = sum(all_of_it) - all_of_it.idle - getattr(all_of_it, "iowait", 0.0)
        mine = sum(psutil.Process().cpu_times()[:4])  # user and system, of this process and of its children
        return time.monotonic(), busy - mine
