"""The native module of the CUDA backend (csrc/module_cuda.cc)."""

from typing import Any

import numpy as np

from ._cpu import Tensors

def presence() -> tuple[bool, str | None]:
    """Whether a driver and a device are here, and why the kernels cannot run on any, or None."""

def scratch_bytes(op: int, chunks: int, addresses: int) -> int: ...
def ffi_handlers() -> dict[str, dict[str, Any]]:
    """By target and stage of XLA."""

def launch(
    op: int,
    anchored: bool,
    table: int,
    chunks: int,
    addresses: list[int],
    leaves: int,
    coefficients: int,
    scratch: int,
    totals: int,
    slots: int,
    device: int,
    stream: int,
) -> None: ...
def step_scratch_bytes(step: int, anchored: bool, chunks: int, leaves: int) -> int: ...
def step(
    step: int,
    table: np.ndarray,
    table_there: int,
    x: Tensors,
    anchor: Tensors | None,
    gradient: Tensors | None,
    first: Tensors | None,
    second: Tensors | None,
    maximum: Tensors | None,
    coefficients: Any,
    scratch: Any,
    totals: Any,
    device: tuple[int, int],
    stream: int,
) -> None:
    """As `_cpu.step`, on tensors of one device (DLPack's type and index). `table_there`: the address of the plan's
    table there; scratch: (n, 1) float64, of step_scratch_bytes at least."""
