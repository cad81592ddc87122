"""Runs one case through the CUDA kernels without a GPU: as host C++ under the emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fused_penalty._core.dtypes import DTYPES
from fused_penalty._core.operations import Op
from fused_penalty._core.plan import BOTH, Plan
from tests.support.paths import ROOT

CHUNK = 4096  # small, so that small cases have many chunks
READS, WRITES = (Op.SUMS, Op.STATS), (Op.GRADIENT, Op.ADD_GRADIENT, Op.PROX, Op.REGULARIZE)
IN_PLACE = (Op.PROX, Op.REGULARIZE)  # the leaf itself is written


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit that nvcc belongs to."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    out = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True).stderr
    top = next((line.split("=", 1)[1] for line in out.splitlines() if line.startswith("#$ TOP=")), None)
    return None if top is None else Path(top.strip()).resolve()


@dataclass
class Case:
    """Leaves with their offset (in elements) from a multiple of 16 bytes; strengths for each slot."""

    op: Op
    leaves: list[np.ndarray]
    anchors: list[np.ndarray] | None = None
    slots: list[int] | None = None  # default: one slot per leaf
    strengths: np.ndarray | None = None
    skew: Sequence[int] = ()
    terms: int = BOTH
    absent: Sequence[int] = ()  # leaves that are only read
    olds: list[np.ndarray] | None = None  # what stands in the outputs before; default: noise for Op.ADD_GRADIENT
    wide: bool = True
    capacity: int = 480
    chunk: int = CHUNK
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.leaves)
        self.slots = self.slots or list(range(n))
        self.plan = Plan(
            tuple(x.size for x in self.leaves),
            tuple(DTYPES.index(x.dtype.name) for x in self.leaves),
            tuple(self.slots),
            (1,) * n,
            (self.terms,) * n,
            self.chunk,
        )
        if self.strengths is None:
            self.strengths = np.tile([0.3, 0.7], (self.plan.slot_count, 1))
        if self.op is Op.ADD_GRADIENT and self.olds is None:
            rng = np.random.default_rng(5)
            self.olds = [rng.standard_normal(x.shape).astype(x.dtype) for x in self.leaves]
        self.skew = [k * x.itemsize for k, x in zip(self.skew or [0] * n, self.leaves, strict=True)]

    @property
    def real(self) -> type:
        return np.float64 if self.wide else np.float32


@dataclass
class Result:
    totals: np.ndarray  # (slots, len(op.columns))
    one: float
    outs: list[np.ndarray]


def build(
    folder: Path, flags: Sequence[str] = (), patch: tuple[str, str, str] | None = None, only: Op | None = None
) -> Path:
    """The emulated program; `patch` = (file under kernels/, text, replacement) seeds a fault in a copy. `only`: a
    program of one operation."""
    source = ROOT
    if patch is not None:
        source = folder / "source"
        shutil.copytree(ROOT / "kernels", source / "kernels")
        shutil.copytree(ROOT / "tests" / "emulation", source / "tests" / "emulation")
        file = source / "kernels" / patch[0]
        text = file.read_text()
        assert text.count(patch[1]) >= 1, f"{patch[1]!r} is not in {patch[0]}"
        file.write_text(text.replace(patch[1], patch[2]))
    top = toolkit()
    assert top is not None
    program = folder / "emulated"
    includes = [f"-I{source}", f"-I{source / 'tests' / 'emulation'}", "-isystem", str(top / "include")]
    command = ["g++", "-std=c++20", "-g1", "-O1", "-ffp-contract=off", *flags, *includes]
    command += [] if only is None else [f"-DONLY_OP={int(only)}"]
    done = subprocess.run(
        [*command, str(source / "tests/emulation/emulated.cc"), "-o", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return program


def encode(case: Case, grid: int) -> bytes:
    header = [
        case.op, case.anchors is not None, case.capacity, grid, case.wide, case.wide,
        case.plan.slot_count, len(case.leaves), len(case.plan.table),
    ]  # fmt: skip
    assert case.strengths is not None
    parts = [
        np.array(header, np.int32).tobytes(),
        case.plan.table.tobytes(),
        case.strengths.astype(case.real).tobytes(),
    ]
    for arrays in (case.leaves, case.anchors or []):
        for x, skew in zip(arrays, case.skew, strict=False):
            parts += [np.array([x.nbytes, skew, 1], np.int64).tobytes(), x.tobytes()]
    if case.op in WRITES:  # 0: absent, 1: memory of its own, with what stands in it, 2: the leaf itself
        own = 2 if case.op in IN_PLACE else 1
        for i, (x, skew) in enumerate(zip(case.leaves, case.skew, strict=True)):
            old = np.zeros_like(x) if case.olds is None else case.olds[i]
            parts += [np.array([x.nbytes, skew, 0 if i in case.absent else own], np.int64).tobytes(), old.tobytes()]
    return b"".join(parts)


def decode(case: Case, raw: bytes) -> Result:
    count = case.plan.slot_count * len(case.op.columns)
    width = np.dtype(case.real).itemsize * count
    totals = np.frombuffer(raw[:width], case.real).reshape(-1, len(case.op.columns))
    (one,) = np.frombuffer(raw[width : width + 4], np.float32)
    outs, at = [], width + 4
    for x in case.leaves if case.op in WRITES else []:
        outs.append(np.frombuffer(raw[at : at + x.nbytes], x.dtype).reshape(x.shape))
        at += x.nbytes
    return Result(totals, float(one), outs)


def emulate(
    program: Path, case: Case, folder: Path, *, grid: int = 3, seed: int = 0, environment: dict[str, str] | None = None
) -> Result | str:
    """The result, or what the program said when it was stopped."""
    given, found = folder / "case", folder / "result"
    given.write_bytes(encode(case, grid))
    env = {**os.environ, "CUDA_EMUL_SEED": str(seed), **(environment or {})}
    prefix = ["setarch", "-R"] if shutil.which("setarch") else []
    done = subprocess.run([*prefix, str(program), str(given), str(found)], capture_output=True, text=True, env=env)
    return done.stderr or "stopped" if done.returncode else decode(case, found.read_bytes())
