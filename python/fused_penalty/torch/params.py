"""Module, mapping or iterable of tensors -> the selected leaves with their paths, strengths and anchors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .._core.errors import bad, bad_anchor, bad_dtype, bad_object, describe
from .._core.plan import DTYPES
from .._core.strengths import Groups, check_mask_leaf, group, resolve_strengths
from .scalars import admit, is_tensor, is_wrapper

try:
    from .._cpu import Tensors
except ImportError:  # not built: fused_penalty.backends() tells
    Tensors = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from .mesh import Shards

SUPPORTED = frozenset(getattr(torch, name) for name in DTYPES)
Params = nn.Module | Mapping[str, Any] | Iterable[Any]


@dataclass(frozen=True)
class Leaves:
    """What `params` holds, flat: dotted names (or positions) and tensors."""

    names: Callable[[], Sequence[str]]
    tensors: list[Any]
    keys: list[str] | None  # of a Module, a mapping or (name, tensor) pairs; None for a plain iterable

    def one_a_memory(self) -> Leaves:
        """Without the tied ones: in a Module or mapping one memory counts once, under its first name."""
        seen: set[Any] = set()
        first = []
        for i, t in enumerate(self.tensors):
            key = memory_key(t)
            if key not in seen:
                seen.add(key)
                first.append(i)
        if len(first) == len(self.tensors) or self.keys is None:
            return self
        keys = [self.keys[i] for i in first]
        return Leaves(lambda: keys, [self.tensors[i] for i in first], keys)


@dataclass(frozen=True)
class Selection:
    all: Leaves
    index: Sequence[int]  # positions of the selected leaves
    leaves: list[Tensor]
    anchors: list[Tensor]  # empty without an anchor
    groups: Groups
    dtype: torch.dtype  # of the result
    by_device: list[Sequence[int]]  # indices into leaves
    shards: Shards | None  # where there are DTensors: leaves are then what this rank holds of them
    read: Any  # the leaves as the native reader has read them, where it could

    @property
    def params(self) -> list[Tensor]:
        """The selected leaves as the caller holds them: DTensors, where `leaves` are parts of them."""
        return self.leaves if self.shards is None else self.shards.tensors

    def local(self, outs: Sequence[Tensor | None]) -> list[Tensor | None]:
        """What this rank holds of outputs that are placed as `params`."""
        return list(outs) if self.shards is None else self.shards.local(outs)

    def paths(self) -> tuple[str, ...]:
        names = self.all.names()
        return tuple(names) if len(self.index) == len(names) else tuple(names[i] for i in self.index)


def memory_key(t: Any) -> Any:
    """Equal for tensors that are one memory; the object itself where memory cannot be asked for."""
    if torch.compiler.is_compiling() or not isinstance(t, Tensor) or t.layout != torch.strided or t.is_nested:
        return id(t)
    if is_wrapper(t):  # fake tensors warn when they are asked
        return id(t)
    try:
        address = t.data_ptr()
    except RuntimeError:  # functorch wrappers, fake tensors
        return id(t)
    return (address, t.dtype, t.shape, t.stride()) if address else id(t)


_NUMBERS = tuple(map(str, range(4096)))


def _numbers(n: int) -> tuple[str, ...]:
    return _NUMBERS[:n] if n <= len(_NUMBERS) else tuple(map(str, range(n)))


def flatten(params: Params, argument: str = "params") -> Leaves:
    """Modules give their parameters (not buffers), mappings nest, lists give positions as names."""
    if isinstance(params, nn.Module):
        named = dict(params.named_parameters())
        return Leaves(lambda: list(named), list(named.values()), list(named)).one_a_memory()
    if isinstance(params, Mapping):
        flat = dict(_walk("", params))
        return Leaves(lambda: list(flat), list(flat.values()), list(flat)).one_a_memory()
    if isinstance(params, Tensor):
        return Leaves(lambda: [""], [params], None)
    if not isinstance(params, Iterable) or isinstance(params, (str, bytes)):
        raise bad(
            TypeError, argument, f"{describe(params)} holds no parameters",
            "Give an nn.Module, an iterable of tensors or of (name, tensor) pairs, or a mapping",
        )  # fmt: skip
    items = list(params)
    if items and all(isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str) for x in items):
        names = [name for name, _ in items]
        return Leaves(lambda: names, [x for _, x in items], names)
    return Leaves(lambda: _numbers(len(items)), items, None)


def _walk(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _walk(f"{prefix}.{i}" if prefix else str(i), item)
    elif value is not None:
        yield prefix, value


def _prefix_tree(argument: str, tree: Any, leaves: Leaves) -> list[Any] | None:
    """One entry for each name. Keys are dotted names or the leading parts of them; lists count positions."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return None
    names = leaves.names()
    entries = dict(_walk("", tree))
    unused = set(entries)
    found = []
    for name in names:
        parts = name.split(".")
        heads = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
        key = next((head for head in heads if head in entries), None)
        if key is None:
            raise bad(
                ValueError, argument, "its tree has no entry for this leaf",
                "Give a scalar, an entry for this name or for a leading part of it, or by_path", path=name,
            )  # fmt: skip
        unused.discard(key)
        found.append(entries[key])
    if unused:
        raise bad(
            ValueError, argument, f"its entries {sorted(unused)} name no leaf",
            f"Remove or correct them; names look like {list(names)[:5]}",
        )  # fmt: skip
    return found


def select(params: Params, l1: Any, l2: Any, mask: Any, anchor: Any) -> Selection:
    """Flatten, mask and check; nothing is computed yet."""
    found = flatten(params)
    selected = [True] * len(found.tensors)
    index: Sequence[int] = range(len(selected))
    if mask is not None:
        tree = mask(params) if callable(mask) and not isinstance(mask, nn.Module) else mask
        flat = _prefix_tree("mask", tree, found)
        values = [tree] * len(selected) if flat is None else flat
        selected = [check_mask_leaf(v, name) for v, name in zip(values, found.names(), strict=True)]
        index = [i for i, keep in enumerate(selected) if keep]
    leaves = found.tensors if len(index) == len(selected) else [found.tensors[i] for i in index]
    survey = _read(leaves)
    if survey is None:
        check_leaves(leaves, found, index)

    def broadcast(argument: str, tree: Any) -> list[Any] | None:
        return _prefix_tree(argument, tree, found)

    strengths = [
        resolve_strengths(name, value, found.names, found.tensors, selected, is_tensor, broadcast, admit=admit)
        for name, value in (("l1", l1), ("l2", l2))
    ]
    anchors = _anchors(anchor, found, index, leaves)
    shards = None
    if survey is None:
        shards, leaves, anchors = _unwrap(leaves, anchors, found, index)
        survey = _look(leaves, found, index)
    dtype, by_device, read = survey
    return Selection(found, index, leaves, anchors, group(len(leaves), *strengths), dtype, by_device, shards, read)


def is_frozen(x: Tensor) -> bool:
    """A parameter that does not learn: it is counted, and nothing is computed or written for it."""
    return not x.requires_grad and type(x) is not Tensor and isinstance(x, nn.Parameter)  # the slow test comes last


def is_plain() -> bool:
    """True in eager mode without any transform: no compile, no trace, no functorch level, no tracing mode."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
    )


# The result's dtype, the leaves' indices device by device, and what the native reader has read, if it could.
Survey = tuple[torch.dtype, list[Sequence[int]], Any]


def _read(leaves: list[Any]) -> Survey | None:
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


def _look(leaves: list[Tensor], found: Leaves, index: Sequence[int]) -> Survey:
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


def _unwrap(
    leaves: list[Any], anchors: list[Any], found: Leaves, index: Sequence[int]
) -> tuple[Shards | None, list[Any], list[Any]]:
    """What this rank holds of DTensors. Without torch.distributed.tensor there are none."""
    if "torch.distributed.tensor" in sys.modules:
        from .mesh import DTensor, unwrap

        if any(isinstance(x, DTensor) for x in (*leaves, *anchors)):
            names = found.names()
            return unwrap(leaves, anchors, [names[i] for i in index])
    return None, leaves, anchors


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


def _anchors(anchor: Any, found: Leaves, index: Sequence[int], leaves: list[Tensor]) -> list[Tensor]:
    if anchor is None:
        return []
    other = flatten(anchor, "anchor")
    if len(other.tensors) != len(found.tensors) or (
        found.keys is not None and other.keys is not None and other.keys != found.keys
    ):
        raise bad_anchor("", f"{len(other.tensors)} tensors that do not pair with {len(found.tensors)} leaves")
    chosen = [other.tensors[i] for i in index]
    check_leaves(chosen, other, index)
    for i, a, x in zip(index, chosen, leaves, strict=True):
        if a.shape != x.shape or a.dtype != x.dtype or a.device != x.device:
            raise bad_anchor(
                found.names()[i],
                f"{a.dtype}{list(a.shape)} on {a.device} beside a leaf of {x.dtype}{list(x.shape)} on {x.device}",
            )
    return chosen
