"""Module, mapping or iterable of tensors -> its tensors and their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._core.errors import bad, describe

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


def memory_key(t: Any) -> Any:
    """Equal for tensors that are one memory; the object itself where memory cannot be asked for."""
    if torch.compiler.is_compiling() or not isinstance(t, Tensor) or t.layout != torch.strided or t.is_nested:
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
