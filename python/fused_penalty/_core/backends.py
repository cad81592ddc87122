"""One table of backends: name, framework, devices, how to load it, and why it is not available.

A new backend is a row of BACKENDS; protocols.py says what it has to be.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import bad, describe
from .native import module, native, warn_of_reference
from .plan import CHUNK, GPU_CHUNK

ENVIRONMENT = "FUSED_PENALTY_BACKEND"
INTERPRET = "TRITON_INTERPRET"


@dataclass(frozen=True)
class Backend:
    """A row: `devices` are JAX platforms or torch device types; "any" stands for all of them.

    `load` makes the launcher or raises ImportError with the reason. `missing` says what the launcher lacks on this
    machine: code can be compiled for a device that is not here, but not run. `unfit` says why it cannot run on the
    device that is here: for that one nothing is to be compiled, either. `steps`: whether it also makes an optimizer's
    step.
    """

    name: str
    framework: str
    devices: tuple[str, ...]
    load: Callable[[], Any]
    missing: Callable[[], str | None] = lambda: None
    unfit: Callable[[], str | None] = lambda: None
    steps: bool = False

    def reason(self) -> str | None:
        """Why it cannot run here, or None."""
        return _attempt(self)[1] or self.missing()

    def fits(self, device: str) -> bool:
        return self.devices == ("any",) or device in self.devices

    def is_built(self) -> bool:
        return _attempt(self)[1] is None

    def launcher(self) -> Any:
        launcher, reason = _attempt(self)
        if launcher is None:
            raise self._unavailable(reason)
        return launcher

    def check(self) -> None:
        """Raise RuntimeError with the reason if it cannot run here."""
        reason = self.reason()
        if reason is not None:
            raise self._unavailable(reason)

    def _unavailable(self, reason: str | None) -> Exception:
        return bad(
            RuntimeError, "backend", f"{self.name!r} is not available for {self.framework}: {reason}",
            "See fused_penalty.backends(); pass backend=None to choose automatically",
        )  # fmt: skip


@functools.cache
def _attempt(row: Backend) -> tuple[Any, str | None]:
    try:
        return row.load(), None
    except ImportError as e:
        return None, str(e)


def _load_jax(name: str) -> Callable[[], Any]:
    def load() -> Any:
        found = native(name)
        ffi = module("jax.backends.ffi")
        platform, chunk = {"cpu": ("cpu", CHUNK), "cuda": ("CUDA", GPU_CHUNK)}[name]
        ffi.register(found.ffi_handlers(), platform)
        if name == "cpu":
            return ffi.Launcher(chunk)
        return ffi.Launcher(chunk, found.scratch_bytes, found.step_scratch_bytes)

    return load


def _load_torch(name: str) -> Callable[[], Any]:
    def load() -> Any:
        native("cpu")  # reads the tensors
        native(name)
        return module(f"torch.backends.{name}").LAUNCHER

    return load


def _interpreted() -> bool:
    return os.environ.get(INTERPRET, "").lower() in ("1", "true", "yes", "on", "y")  # as Triton reads it


# Triton's interpreter runs kernels on the CPU; where it is on, they take only CPU tensors.
TRITON_DEVICES = ("cpu",) if _interpreted() else ("cuda", "xpu")


def _load_triton() -> Any:
    native("cpu")  # reads the tensors
    if (TRITON_DEVICES == ("cpu",)) != _interpreted():
        raise ImportError(f"{INTERPRET} was changed after the backends were looked up; set it before the import")
    if importlib.util.find_spec("triton") is None:
        raise ImportError("Triton is not installed; pip install 'triton>=3.6' (PyTorch for GPUs brings it)")
    return module("torch.backends.triton").LAUNCHER


@functools.cache
def _no_gpu() -> str | None:
    torch = importlib.import_module("torch")
    if TRITON_DEVICES == ("cpu",) or torch.cuda.is_available() or torch.xpu.is_available():
        return None
    return f"no device (NVIDIA, AMD or Intel GPU), and {INTERPRET}=1 was not set before the import"


def _load_module(name: str) -> Callable[[], Any]:
    return lambda: module(name)


@functools.cache
def _cuda_device() -> tuple[bool, str | None]:
    """Whether a driver and a device are here, and why the kernels cannot run."""
    return native("cuda").presence()


def _no_cuda() -> str | None:
    return _cuda_device()[1]


def _unfit_cuda() -> str | None:
    """Too old a driver, or a device older than all that the kernels are compiled for."""
    here, why = _cuda_device()
    return why if here else None


BACKENDS = (
    Backend("cuda", "jax", ("cuda",), _load_jax("cuda"), _no_cuda, _unfit_cuda, steps=True),
    Backend("cuda", "torch", ("cuda",), _load_torch("cuda"), _no_cuda, _unfit_cuda, steps=True),
    Backend("cpu", "jax", ("cpu",), _load_jax("cpu"), steps=True),
    Backend("cpu", "torch", ("cpu",), _load_torch("cpu"), steps=True),
    # "cuda" is what PyTorch calls an AMD GPU, too; after "cpu", so that the interpreter runs when it is asked for
    Backend("triton", "torch", TRITON_DEVICES, _load_triton, _no_gpu, steps=True),
    Backend("reference", "jax", ("any",), _load_module("jax.backends.reference"), steps=True),
    Backend("reference", "torch", ("any",), _load_module("torch.backends.reference"), steps=True),
)


def rows(framework: str, name: str | None, *, steps: bool = False) -> list[Backend]:
    """The rows that a call may use, best first: all that are built by default, else exactly the named one. With
    `steps`, only rows that make an optimizer's step.

    Raises ValueError for an unknown name and RuntimeError for one that is not available.
    """
    mine = [row for row in BACKENDS if row.framework == framework]
    if name is None:
        return [row for row in mine if row.is_built() and row.steps >= steps]
    named = [row for row in mine if row.name == name]
    if not named:
        known = ", ".join(repr(row.name) for row in mine)
        raise bad(
            ValueError, "backend", f"{name!r} is unknown for {framework}",
            f"Use one of {known}, or None to choose automatically",
        )  # fmt: skip
    for row in named:
        row.check()
    if steps and not all(row.steps for row in named):
        able = ", ".join(repr(row.name) for row in mine if row.steps)
        raise bad(
            ValueError, "backend", f"{name!r} has no kernel for an optimizer's step",
            f"Use one of {able}, or None to choose automatically",
        )  # fmt: skip
    return named


def requested(framework: str, name: str | None) -> str | None:
    """The name asked for by argument or environment, checked; None lets the library choose."""
    if name is None:
        name = os.environ.get(ENVIRONMENT) or None
    elif not isinstance(name, str):
        raise bad(TypeError, "backend", f"{describe(name)} is not a name", "Use a str, or None to choose automatically")
    if name is not None:
        rows(framework, name)
    return name


def choose(framework: str, name: str | None, device: str, *, steps: bool = False) -> Backend:
    """The row that runs on `device`: the first that fits and can run here, or the named one, which must fit. With
    `steps`, only rows that make an optimizer's step."""
    if name is None:
        mine = (row for row in BACKENDS if row.framework == framework and row.fits(device) and row.steps >= steps)
        found = next(row for row in mine if row.reason() is None)
        warn_if_slow(found, device)
        return found
    allowed = rows(framework, name, steps=steps)
    for row in allowed:
        if row.fits(device):
            return row
    raise bad(
        ValueError, "backend", f"{allowed[0].name!r} runs on {', '.join(allowed[0].devices)}, not on {device}",
        "Move the parameters, or pass backend=None to choose automatically",
    )  # fmt: skip


def warn_if_slow(chosen: Backend, device: str) -> None:
    """Once, if the library's own choice is the reference on a device that the CPU's kernels serve. Not at import, and
    not where a backend is named: there nobody is surprised."""
    if chosen.name == "reference":
        cpu = next(row for row in BACKENDS if (row.name, row.framework) == ("cpu", chosen.framework))
        if cpu.fits(device) and (reason := cpu.reason()) is not None:
            warn_of_reference(reason)


@dataclass(frozen=True)
class Table:
    """What `backends()` returns; prints as a table.

    Attributes:
      rows: (backend, framework, device, available, why not) of each, best first within a framework. Devices are JAX
        platforms or torch device types; why not is "" where the backend is available.
    """

    rows: tuple[tuple[str, str, str, bool, str], ...]

    def __str__(self) -> str:
        head = ("backend", "framework", "device", "available", "why not")
        cells = [head, *((n, f, d, "yes" if ok else "no", why) for n, f, d, ok, why in self.rows)]
        width = [max(len(row[i]) for row in cells) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in cells)

    __repr__ = __str__


def backends() -> Table:
    """List the backends, whether each can run in this process, and if not, why.

    Returns:
      A `Table`, which prints as one; its `rows` are (backend, framework, device, available, why not).

    Example:
      >>> import fused_penalty as fp
      >>> [row[0] for row in fp.backends().rows if row[1] == "jax"]
      ['cuda', 'cpu', 'reference']
    """
    found = []
    for row in BACKENDS:
        reason = row.reason()
        found.append((row.name, row.framework, ", ".join(row.devices), reason is None, reason or ""))
    return Table(tuple(found))
