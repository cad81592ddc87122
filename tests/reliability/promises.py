"""What a promise is, how much of it is tried, and how it is run in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
MIB = 2**20
STATM, MEMINFO = Path("/proc/self/statm"), Path("/proc/meminfo")


@dataclass(frozen=True)
class Counts:
    """How much is tried."""

    threads: int
    calls: int
    rounds: int  # of forks, interrupts, failures
    shapes: int
    leaves: int
    elements: int
    examples: int


FULL = Counts(8, 1000, 20, 20_000, 1_000_000, 2**31 + 70_001, 20_000)
QUICK = Counts(4, 10, 2, 200, 5_000, 2**20 + 70_001, 50)


@dataclass(frozen=True)
class Found:
    """What came out: a figure in words, and whether the promise is kept; `kept` is None where it could not be tried."""

    figure: str
    kept: bool | None

    @property
    def verdict(self) -> str:
        return {True: "kept", False: "BROKEN", None: "not tried here"}[self.kept]


@dataclass(frozen=True)
class Promise:
    name: str
    text: str
    prove: Callable[[Counts], Found]


def in_a_process(names: Sequence[str], counts: Counts, *, timeout: float = 600, **environment: str) -> dict[str, Found]:
    """What the promises of these names find, in one process, which may crash or hang without harm to this one: that
    breaks those that it has not come to the end of."""
    command = [sys.executable, "-m", "tests.reliability", json.dumps(asdict(counts)), *names]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            code = subprocess.run(
                command, stdout=out, stderr=err, timeout=timeout, env=environment, cwd=ROOT
            ).returncode
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit status {code}"
        except subprocess.TimeoutExpired:
            why = f"no answer within {timeout:g} s"
        out.seek(0)
        err.seek(0)
        last = (err.read().strip().splitlines() or [""])[-1]
        lines = [json.loads(line) for line in out if line.startswith("{")]
    found = {name: Found(**values) for line in lines for name, values in line.items()}
    return {name: found.get(name, Found(f"{why}. {last}", False)) for name in names}


def resident() -> int:
    """Bytes of memory that this process holds; where that cannot be known, the most it has ever held."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available() -> int:
    """Bytes of memory that may be had without swapping."""
    for line in MEMINFO.read_text().splitlines() if MEMINFO.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
