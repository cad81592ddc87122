"""Strengths and steps that are 0-d tensors: every one is checked here.

A launch reads them by address, so a tensor without memory of its own is unwrapped or refused, before anything is
computed. Their values are never read.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from .._core.errors import bad
from .._core.strengths import check_strength
from .modes import is_plain


def is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def check_scalar(argument: str, value: Any, path: str | None = None) -> Any:
    """A strength or a step: a finite float >= 0, or a plain 0-d tensor."""
    return check_strength(argument, value, is_tensor, path, admit=admit)


def admit(argument: str, value: Tensor, path: str | None) -> Tensor:
    """The tensor to compute with: of a replicated DTensor its local one, else the tensor itself.

    Raises:
      TypeError: a tensor without memory that can be read: other wrapper subclasses, meta, sparse and quantized ones.
      ValueError: a DTensor that this rank does not hold whole.
    """
    if _hides_memory(value):
        return _unwrap(argument, value, path)
    if value.is_meta or value.layout is not torch.strided or value.is_quantized:
        kind = "meta" if value.is_meta else "quantized" if value.is_quantized else f"sparse ({value.layout})"
        raise bad(
            TypeError, argument, f"a {kind} tensor has no value that can be read",
            "Give a float or a dense 0-d tensor on a real device; materialize the module first, if it is its parameter",
            path=path,
        )  # fmt: skip
    return value


def as_double(value: float | Tensor, device: torch.device) -> Tensor:
    """In float64 on the device. Unlike `torch.as_tensor`, makes no constant in a trace."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float64)
    return torch.full((), value, dtype=torch.float64, device=device)


def is_wrapper(value: Tensor) -> bool:
    """A subclass with operations of its own, whose memory is elsewhere."""
    return type(value).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl


def _hides_memory(value: Tensor) -> bool:
    """Whether it is a wrapper, except the fake and functional tensors that stand for plain ones while torch traces."""
    if not is_wrapper(value):
        return False
    return is_plain() or not type(value).__module__.startswith("torch._subclasses.")


def _unwrap(argument: str, value: Tensor, path: str | None) -> Tensor:
    if "torch.distributed.tensor" in sys.modules:
        from .mesh import DTensor, unwrap_scalar

        if isinstance(value, DTensor):
            return unwrap_scalar(argument, value, path)
    kind = type(value)
    raise bad(
        TypeError, argument, f"a {kind.__module__}.{kind.__qualname__} is a wrapper whose value lies in other tensors",
        "Give a float or the plain 0-d tensor that it stands for", path=path,
    )  # fmt: skip
