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
    def empty(self) -> list[int]: ...
    @property
    def irregular(self) -> list[int]: ...
    @property
    def permuted(self) -> list[int]: ...
    def shared(self, others: Tensors) -> list[tuple[int, int]]: ...

def supported(isa: Isa) -> bool: ...
def best_isa() -> Isa: ...
def ffi_handlers() -> dict[str, Any]: ...
def launch(
    op: int,
    table: np.ndarray,
    x: Tensors,
    anchor: Tensors | None,
    out: Tensors | None,
    coefficients: Any,
    totals: Any,
    threads: int,
    isa: Isa = ...,
) -> None:
    """Tensors throughout: coefficients (slots, 2) float64, or None where the operation writes nothing; totals
    (slots, op.columns) float64, written. Raises ValueError where one of them does not fit."""

def step(
    step: int,
    table: np.ndarray,
    x: Tensors,
    anchor: Tensors | None,
    gradient: Tensors | None,
    first: Tensors | None,
    second: Tensors | None,
    maximum: Tensors | None,
    coefficients: Any,
    totals: Any,
    threads: int,
    isa: Isa = ...,
) -> None:
    """An optimizer's step (`_core.steps.Step`): x and the state are written. Coefficients (slots, 16) and totals
    (slots, 6) are float64 tensors."""

def steps() -> list[tuple[str, int]]: ...
def step_columns() -> list[str]: ...
def step_coefficients() -> list[str]: ...
