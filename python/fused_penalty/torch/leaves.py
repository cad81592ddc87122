"""Module, mapping or iterable of tensors -> its tensors and their names; tied ones once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._core.containers import unique, walk
from .._core.errors import bad, describe
from .._core.rules import About
from .types import Params


@dataclass(frozen=True)
class Leaves:
    """What `params` holds, flat: dotted names (or positions) and tensors."""

    names: Callable[[], Sequence[str]]
    tensors: list[Any]
    keys: list[str] | None  # of a Module, a mapping or (name, tensor) pairs; None for a plain iterable
    everything: Callable[[], Iterable[tuple[str, Any]]] = tuple  # with the tied ones that `tensors` leaves out
    around: Callable[[str], tuple[type, ...]] | None = None  # the types of the modules around a name, where known

    def about(self) -> About:
        """What rules can learn."""

        def owners() -> Sequence[tuple[type, ...]] | None:
            return None if self.around is None else [self.around(name) for name in self.names()]

        return About(self.names, self.tensors, owners, named=self.keys is not None)

    def without_ties(self) -> Leaves:
        """Drop tied tensors: in a Module or mapping those with the same elements count once, under their first name."""
        first = first_of(self.tensors)
        if first is None or self.keys is None:
            return self
        index = [i for i, j in enumerate(first) if i == j]
        keys = [self.keys[i] for i in index]
        return Leaves(lambda: keys, [self.tensors[i] for i in index], keys, self.everything, self.around)

    def aliases(self) -> dict[str, list[str]]:
        """The other names of tied leaves, by their first name."""
        everything = list(self.everything())
        found: dict[str, list[str]] = {}
        for (name, _), j in zip(everything, first_of([t for _, t in everything]) or (), strict=False):
            found.setdefault(everything[j][0], []).append(name)
        return found


def first_of(tensors: list[Any]) -> list[int] | None:
    """For each tensor the position of the first one with the same elements in memory; None if all differ.

    Shape and order do not matter: w, w.t() and w.view(-1) are the same, but not a part of w, nor w.expand(...), which
    has elements twice.
    """
    addresses = [_address(t) for t in tensors]
    if len(set(addresses)) == len(addresses):
        return None
    alike: dict[int, list[int]] = {}
    for i, address in enumerate(addresses):
        alike.setdefault(address, []).append(i)
    first = list(range(len(tensors)))
    for group in alike.values():
        if len(group) > 1:
            seen: dict[Any, int] = {}
            for i in group:
                first[i] = seen.setdefault(_elements(tensors[i]) if addresses[i] > 0 else None, i)
    return first


def _address(t: Any) -> int:
    """Where its memory begins; where there is no data pointer, minus the object's id, which is below all addresses."""
    if torch.compiler.is_compiling() or not isinstance(t, Tensor) or t.layout != torch.strided or t.is_nested:
        return -id(t)
    return memory_of(t) or -id(t)


def memory_of(t: Tensor) -> int:
    """The address of a dense tensor; 0 where it has no memory of its own, or no data pointer."""
    try:
        if type(t).__torch_dispatch__ is Tensor.__torch_dispatch__:
            return t.data_ptr()
        with warnings.catch_warnings():  # "a FakeTensor has no data pointer"
            warnings.simplefilter("ignore")
            return t.data_ptr()
    except (RuntimeError, ValueError):  # functorch wrappers and fake tensors; lazy parameters
        return 0


def _elements(t: Tensor) -> Any:
    """A key, equal for tensors at one address with the same elements: dimensions by stride, merged if possible."""
    dims: list[tuple[int, int]] = []
    for step, n in sorted((step, n) for step, n in zip(t.stride(), t.shape, strict=True) if n != 1):
        if dims and step == dims[-1][0] * dims[-1][1]:
            dims[-1] = (dims[-1][0], dims[-1][1] * n)
        else:
            dims.append((step, n))
    return t.device, t.dtype, tuple(dims)


class Known(list):
    """(name, tensor) pairs of an optimizer's parameters, and the types of the modules around each name."""

    around: Callable[[str], tuple[type, ...]]


def types_around(module: nn.Module, name: str) -> tuple[type, ...]:
    """The types of the modules that a parameter is in, outermost first."""
    found = [type(module)]
    for step in name.split(".")[:-1]:
        module = module.get_submodule(step)
        found.append(type(module))
    return tuple(found)


_NUMBERS = tuple(map(str, range(4096)))


def _numbers(n: int) -> tuple[str, ...]:
    return _NUMBERS[:n] if n <= len(_NUMBERS) else tuple(map(str, range(n)))


def flatten(params: Params, argument: str = "params") -> Leaves:
    """Modules give their parameters (not buffers), mappings nest, lists give positions as names."""
    if type(params) is list:  # the usual case, without three tests for abstract types
        return _listed(params, argument)
    if isinstance(params, nn.Module):
        module = params
        named = dict(module.named_parameters())
        leaves = Leaves(
            lambda: list(named), list(named.values()), list(named),
            lambda: module.named_parameters(remove_duplicate=False), lambda name: types_around(module, name),
        )  # fmt: skip
        return leaves.without_ties()
    if isinstance(params, Mapping):
        flat = unique(argument, walk(argument, params))
        return Leaves(lambda: list(flat), list(flat.values()), list(flat), flat.items).without_ties()
    if isinstance(params, Tensor):
        return Leaves(lambda: [""], [params], None)
    if not isinstance(params, Iterable) or isinstance(params, (str, bytes)):
        raise bad(
            TypeError, argument, f"{describe(params)} holds no parameters",
            "Give an nn.Module, an iterable of tensors or of (name, tensor) pairs, or a mapping",
        )  # fmt: skip
    return _listed(params, argument)


def _listed(params: Iterable[Any], argument: str) -> Leaves:
    items = list(params)
    if items and all(isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str) for x in items):
        names = list(unique(argument, items))
        around = params.around if isinstance(params, Known) else None
        return Leaves(lambda: names, [x for _, x in items], names, around=around)
    return Leaves(lambda: _numbers(len(items)), items, None)


def flatten_with_ties(params: Params, argument: str) -> Leaves:
    """`flatten` with every name of a tied tensor, to look up names in."""
    found = flatten(params, argument)
    if found.keys is None:
        return found
    every = dict(found.everything()) or dict(zip(found.keys, found.tensors, strict=True))
    return Leaves(lambda: list(every), list(every.values()), list(every))
