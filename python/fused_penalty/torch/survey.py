"""A first look at the leaves: whether a kernel can read them, their devices, the dtype of the result."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._core import dtypes
from .._core.errors import bad, bad_dtype, bad_object
from .leaves import memory_of
from .modes import is_plain

try:
    from .._cpu import Tensors
except ImportError:  # not built; fused_penalty.backends() says so
    Tensors = None  # type: ignore[assignment, misc]


class Surveyed(list):
    """Tensors that the native reader has read already: `read` is good while the list is as it was made."""

    def __init__(self, tensors: Iterable[Any], read: Any) -> None:
        super().__init__(tensors)
        self.read = read


SUPPORTED, WRITABLE = (frozenset(getattr(torch, name) for name in names) for names in (dtypes.DTYPES, dtypes.WRITABLE))

# The result's dtype, the leaves' indices device by device, and what the native reader has read, if it could.
Survey = tuple[torch.dtype, list[Sequence[int]], Any]


def read_natively(leaves: list[Any]) -> Survey | None:
    """Fast path: survey the leaves in native code (about 10x faster); None if they must be looked at in Python."""
    if Tensors is None or not is_plain():
        return None
    try:
        read = Tensors(leaves)
    except (TypeError, RuntimeError, BufferError):
        return None
    if len(read.devices) != 1 or _may_stand_in(leaves, read):
        return None
    return torch.float64 if read.has_float64 else torch.float32, [range(len(leaves))], read


def _may_stand_in(leaves: list[Any], read: Any) -> bool:
    """Whether one of the leaves stands in for values that are elsewhere. Most of those are empty, so only empty leaves
    are checked."""
    if any(_stands_in(leaves[i]) for i in read.empty):
        return True
    # FSDP1's views are not empty, so all leaves are checked, but only where there can be any: it needs a process group.
    fsdp1 = "torch.distributed.fsdp._flat_param" in sys.modules and torch.distributed.is_initialized()
    return fsdp1 and any(getattr(t, "_fsdp_flattened", False) for t in leaves)


def _stands_in(t: Any) -> tuple[str, str] | None:
    """What is wrong with a tensor whose values are elsewhere, and the remedy; None for any other."""
    if nn.parameter.is_lazy(t):
        return (
            "a parameter of a lazy module, which has no values yet",
            "Run the module once on a batch, or leave it out with mask=",
        )
    if getattr(t, "_fsdp_flattened", False):
        return (
            "a view into the flat parameter of FSDP1, of which this rank may hold only a part",
            "Shard the module with FSDP2 (fully_shard), whose DTensors work; inside FSDP.summon_full_params, "
            "where views are whole, give [p.data for p in ...]",
        )
    if getattr(t, "ds_status", None) is not None and not t.numel() and getattr(t, "ds_numel", None) != 0:
        return (
            "an empty placeholder of DeepSpeed ZeRO-3, whose values lie on other ranks",
            "Gather the parameters first (with deepspeed.zero.GatheredParameters(...)), or shard the module with FSDP2 "
            "(fully_shard), whose DTensors work",
        )
    return None


def look(leaves: list[Tensor]) -> Survey:
    groups: dict[torch.device, list[int]] = {}
    for i, t in enumerate(leaves):
        groups.setdefault(t.device, []).append(i)
    wide = any(t.dtype == torch.float64 for t in leaves)
    return torch.float64 if wide else torch.float32, list(groups.values()), None


def check_memory(tensors: Sequence[Tensor], names: Sequence[str], argument: str = "params") -> None:
    """Raise for the first tensor without memory of its own, by name. A transform may hide memory: no check then."""
    if not is_plain():
        return
    for t, name in zip(tensors, names, strict=True):
        if not t.numel() or memory_of(t):
            continue
        if type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__:  # `_make_wrapper_subclass`
            raise bad(
                TypeError, argument, f"a {type(t).__name__} has no memory of its own, as it wraps other tensors",
                "Give the tensors that it wraps or a plain one with its values, or leave it out with mask=", path=name,
            )  # fmt: skip
        raise bad(
            TypeError, argument, "its memory has been freed, as FSDP does with what it gathered for a forward pass",
            "Give the parameters that the module has now: the module itself, or list(model.parameters())", path=name,
        )  # fmt: skip


def check_leaves(leaves: Sequence[Any], names: Sequence[str], argument: str = "params") -> None:
    """Raise for the first leaf that no kernel can read, by name."""
    compiling = torch.compiler.is_compiling()
    for t, name in zip(leaves, names, strict=True):
        if not isinstance(t, Tensor):
            raise bad_object(
                name, t, "a torch tensor", argument=argument,
                remedy="Give tensors only: torch.as_tensor(x) of an array, group['params'] of an optimizer's group; "
                "or leave it out with mask=",
            )  # fmt: skip
        if not compiling and (reason := _stands_in(t)):
            raise bad(TypeError, argument, *reason, path=name)
        if kind := _kind_without_memory(t):
            raise bad(
                TypeError, argument, f"a {kind} tensor has no dense memory to read",
                "Give a dense tensor (to_dense(), to_empty() and load, dequantize()) or leave it out with mask=",
                path=name,
            )  # fmt: skip
        if t.dtype not in SUPPORTED:
            raise bad_dtype(name, t.dtype, argument)


def _kind_without_memory(t: Tensor) -> str | None:
    if t.layout is torch.strided and t.dtype in SUPPORTED:  # the usual tensor, told by four cheap attributes
        return "meta" if t.is_meta else "nested" if t.is_nested else None
    if t.is_quantized:
        return "quantized"
    if t.layout is not torch.strided:
        return "nested" if t.is_nested else f"sparse ({t.layout})"
    return None
