"""A first look at the leaves: whether a kernel can read them, their devices, the dtype of the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._core.errors import bad, bad_dtype, bad_object
from .._core.plan import DTYPES
from .leaves import Leaves
from .modes import is_plain

try:
    from .._cpu import Tensors
except ImportError:  # not built: fused_penalty.backends() tells
    Tensors = None  # type: ignore[assignment, misc]

SUPPORTED = frozenset(getattr(torch, name) for name in DTYPES)

# The result's dtype, the leaves' indices device by device, and what the native reader has read, if it could.
Survey = tuple[torch.dtype, list[Sequence[int]], Any]


def read_natively(leaves: list[Any]) -> Survey | None:
    """By the native reader, in a tenth of the time; None where it has to be looked at in Python."""
    if Tensors is None or not is_plain():
        return None
    try:
        read = Tensors(leaves)
    except (TypeError, RuntimeError, BufferError):
        return None
    if len(read.devices) != 1:
        return None
    return torch.float64 if read.has_float64 else torch.float32, [range(len(leaves))], read


def look(leaves: list[Tensor], found: Leaves, index: Sequence[int]) -> Survey:
    groups: dict[torch.device, list[int]] = {}
    eager = is_plain()
    for i, t in enumerate(leaves):
        groups.setdefault(t.device, []).append(i)
        if eager and t.numel() and not t.data_ptr():
            raise bad(
                TypeError, "params", "its memory has been freed, as FSDP does with what it gathered for a forward pass",
                "Give the parameters that the module has now: the module itself, or list(model.parameters())",
                path=found.names()[index[i]],
            )  # fmt: skip
    wide = any(t.dtype == torch.float64 for t in leaves)
    return torch.float64 if wide else torch.float32, list(groups.values()), None


def check_leaves(leaves: list[Any], found: Leaves, index: Sequence[int]) -> None:
    """Raises for the first leaf that no kernel can read, by name."""
    for t, i in zip(leaves, index, strict=True):
        if isinstance(t, Tensor) and t.dtype in SUPPORTED and t.layout is torch.strided:
            if t.is_meta or t.is_nested:
                raise _bad_storage(found.names()[i], "meta" if t.is_meta else "nested")
            continue
        name = found.names()[i]
        if not isinstance(t, Tensor):
            raise bad_object(name, t, "a torch tensor")
        if t.is_quantized:
            raise _bad_storage(name, "quantized")
        if t.layout is not torch.strided:
            raise _bad_storage(name, "nested" if t.is_nested else f"sparse ({t.layout})")
        raise bad_dtype(name, t.dtype)


def _bad_storage(name: str, kind: str) -> Exception:
    return bad(
        TypeError, "params", f"a {kind} tensor has no dense memory to read",
        "Give a dense tensor (to_dense(), to_empty() and load, dequantize()) or leave it out with mask=", path=name,
    )  # fmt: skip
