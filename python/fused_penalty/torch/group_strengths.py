"""`l1` and `l2` as entries of an optimizer's parameter groups, beside `lr` and `weight_decay`.

There state_dict, schedulers and sweeps find them. A rule or a tree is about leaves, so it stays with the handle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from .._core.errors import bad
from .._core.strengths import Groups, WeightDecay, group, is_static_zero
from .params import Selection
from .scalars import as_double, check_scalar
from .types import Strength

NAMES = ("l1", "l2")


class GroupStrengths:
    """The strengths of an optimizer's parameters: a group's own entry takes precedence over those given to `attach`."""

    def __init__(self, optimizer: Optimizer, l1: Strength, l2: Strength, *, required: bool = True) -> None:
        self._optimizer = optimizer
        self.given = {"l1": _scalar("l1", l1), "l2": _scalar("l2", l2)}
        self._own: list[frozenset[str]] = []  # for each group, the entries that `attach` found there
        self._before_load: list[dict[str, Any]] = []
        self._known: tuple[Any, Groups] | None = None
        nothing = all(map(is_static_zero, self.given.values()))
        if required and nothing and not any(k in g for g in self._groups for k in NAMES):
            raise bad(
                ValueError, "l1", "neither l1 nor l2 is given, and no parameter group has an entry of its own",
                "Give one; a strength that is to start at 0 can be an entry: optimizer.param_groups[0]['l1'] = 0.0",
            )  # fmt: skip

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    def write(self) -> None:
        """Put the given scalars into the groups that have no entry, including groups added since the last call."""
        for i, g in enumerate(self._groups):
            if i == len(self._own):
                self._own.append(frozenset(k for k in NAMES if k in g))
            for name, value in self.given.items():
                if _fits_a_group(value):
                    g.setdefault(name, value)

    def give(self, name: str, value: Strength) -> None:
        """Set another strength for the groups that had none of their own."""
        self.given[name] = value = _scalar(name, value)
        for g in self._given_to(name):
            if _fits_a_group(value):
                g[name] = value
            else:
                g.pop(name, None)

    def erase(self) -> None:
        """Remove what `write` has put in."""
        for name in NAMES:
            for g in self._given_to(name):
                g.pop(name, None)

    def _given_to(self, name: str) -> list[dict[str, Any]]:
        return [g for g, own in zip(self._groups, self._own, strict=False) if name not in own]

    def for_select(self, name: str) -> Any:
        """The strengths that `select` resolves leaf by leaf; scalars are left to `of_leaves`."""
        value = self.given[name]
        return 0.0 if _is_scalar(value) else value

    def of_groups(self) -> list[tuple[Any, Any]]:
        """l1 and l2 of each group, checked; None where a rule of the handle decides."""
        pairs, first = [], 0
        for g in self._groups:
            path = next(iter(g.get("param_names", ())), str(first))
            l1, l2 = (
                check_scalar(name, g[name], path) if name in g else value if _is_scalar(value) else None
                for name, value in self.given.items()
            )
            pairs.append((l1, l2))
            first += len(g["params"])
        return pairs

    def of_leaves(self, s: Selection, owners: Sequence[int]) -> Groups:
        """The strengths of the leaves of `s`; `owners` has the number of each leaf's group."""
        pairs = self.of_groups()
        if any(strength is None for pair in pairs for strength in pair):
            return group(len(owners), *(self._mixed(s, owners, [p[k] for p in pairs], k) for k in (0, 1)))
        key = [tuple(x if isinstance(x, float) else id(x) for x in pair) for pair in pairs], list(owners)
        if self._known is None or self._known[0] != key:  # grouping 2,000 leaves takes a millisecond
            alike = all(_same(pair, pairs[0]) for pair in pairs)
            each = pairs[:1] if alike else [pairs[k] for k in owners]
            self._known = key, group(len(owners), [a for a, _ in each], [b for _, b in each])
        return self._known[1]

    def _mixed(self, s: Selection, owners: Sequence[int], of_group: list[Any], k: int) -> list[Any]:
        by_rule = (s.groups.l1, s.groups.l2)[k]
        entries = [of_group[g] for g in owners]
        return [by_rule[g] if e is None else e for e, g in zip(entries, s.groups.of_leaf, strict=True)]

    def before_load(self) -> None:
        """Remember the entries: load_state_dict replaces the groups by those of the state."""
        self._before_load = [{k: g[k] for k in NAMES if k in g} for g in self._groups]

    def after_load(self) -> None:
        """Keep the old strengths where the state has none (it was saved before the penalty). Loaded ones are copied
        into the tensors that were here, since whoever changes a strength holds these, not the state's copies."""
        for name in NAMES:
            before = [(g, old[name]) for g, old in zip(self._groups, self._before_load, strict=True) if name in old]
            for g, value in before:
                g.setdefault(name, value)
            for tensor in {id(v): v for _, v in before if isinstance(v, Tensor)}.values():
                groups = [g for g, v in before if v is tensor]
                loaded = [as_double(g[name], tensor.device).detach() for g in groups]
                if len(set(map(float, loaded))) == 1:
                    with torch.no_grad():
                        tensor.copy_(loaded[0])
                    for g in groups:
                        g[name] = tensor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None}  # it holds ids of tensors, which the copy does not have


def _scalar(name: str, value: Any) -> Any:
    """A checked scalar; anything else as it is."""
    if isinstance(value, WeightDecay):
        decay = _scalar("weight_decay", value.value)
        if isinstance(decay, Tensor):
            raise bad(TypeError, "weight_decay", "a tensor, half of which would not change with it", "Give it as l2")
        return decay / 2 if isinstance(decay, float) else value
    if isinstance(value, (int, float, np.generic, np.ndarray, Tensor)):
        return check_scalar(name, value)
    return value


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (float, Tensor))


def _fits_a_group(value: Any) -> bool:
    """Whether load_state_dict and deepcopy can copy it: the result of a recorded operation cannot be copied."""
    return isinstance(value, float) or (isinstance(value, Tensor) and value.is_leaf)


def _same(a: tuple[Any, Any], b: tuple[Any, Any]) -> bool:
    return all(x is y or (isinstance(x, float) and isinstance(y, float) and x == y) for x, y in zip(a, b, strict=True))
