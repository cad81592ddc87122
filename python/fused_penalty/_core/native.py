"""The native modules `_cpu` and `_cuda`: their import, why one is missing, and the one warning of it."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

PACKAGE = __package__.rpartition(".")[0]  # fused_penalty
REMEDY = {
    "cpu": "install from source with a C++20 compiler",
    "cuda": "install from source on Linux with a C++20 compiler",
}


def module(name: str) -> Any:
    """A module of the package."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def native(name: str) -> Any:
    """The native module `_cpu` or `_cuda`; an ImportError says why it was not built, and the remedy."""
    try:
        return module(f"_{name}")
    except ModuleNotFoundError as e:
        if e.name != f"{PACKAGE}._{name}":
            raise
        raise ImportError(f"its native module was not built{_left_out(name)}; {REMEDY[name]}") from None


def _left_out(name: str) -> str:
    """What CMake wrote down; nothing where the module was built and is gone, or nothing was built at all."""
    try:
        reasons: dict[str, str] = module("_left_out").REASONS
    except ModuleNotFoundError:
        return ""
    return f" ({reasons[name]})" if name in reasons else ""


@functools.cache
def warn_of_reference(reason: str) -> None:
    """Once: nobody asked for the reference, and a CPU has it for want of its kernels."""
    warnings.warn(
        f"fused_penalty runs its slow reference on this CPU: {reason}. FUSED_PENALTY_BACKEND=reference asks for it, "
        "without this warning",
        RuntimeWarning,
        stacklevel=2,
    )
