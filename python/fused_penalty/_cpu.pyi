"""The native module of the CPU backend (csrc/module_cpu.cc)."""

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np

class Isa(enum.Enum):
    portable = 0
    avx2 = 1
    avx512 = 2

class Tensors:
    """Addresses, sizes, dtypes and devices of a list of tensors, read through DLPack. It keeps the tensors alive."""

    def __init__(self, tensors: Sequence[Any], like: Tensors | None = None) -> None: ...
    @property
    def layout(self) -> bytes: ...
    @property
    def address_bytes(self) -> bytes: ...
    @property
    def addresses(self) -> list[int]: ...
    @property
    def has_float64(self) -> bool: ...
    @property
    def devices(self) -> list[tuple[int, int]]: ...
    @property
    def irregular(self) -> list[int]: ...
    @property
    def permuted(self) -> list[int]: ...
    def shared(self, others: Tensors) -> list[tuple[int, int]]: ...

def supported(isa: Isa) -> bool: ...
def best_isa() -> Isa: ...
def ffi_targets() -> dict[str, Any]: ...
def launch(
    op: int,
    table: np.ndarray,
    x: Tensors,
    anchor: Tensors | None,
    out: Tensors | None,
    strengths: Any,
    totals: Any,
    threads: int,
    isa: Isa = ...,
) -> None:
    """Tensors throughout: strengths (slots, 2) float64, or None where the operation writes nothing; totals
    (slots, op.columns) float64, written. Raises ValueError where one of them does not fit."""
