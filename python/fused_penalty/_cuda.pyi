"""The native module of the CUDA backend (csrc/module_cuda.cc)."""

from typing import Any

def why_not() -> str | None: ...
def scratch_bytes(op: int, chunks: int, addresses: int) -> int: ...
def ffi_targets() -> dict[str, Any]: ...
def launch(
    op: int,
    anchored: bool,
    table: int,
    chunks: int,
    addresses: list[int],
    leaves: int,
    strengths: int,
    scratch: int,
    totals: int,
    slots: int,
    stream: int,
) -> None: ...
