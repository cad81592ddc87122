"""params, mask, l1, l2 -> the selected leaves, their paths and strengths. Knows no framework.

The frameworks (`jax/params.py`, `torch/params.py`) flatten params into leaves and paths, and broadcast prefix trees;
what masks and strengths mean for the leaves is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import bad, describe
from .plan import BOTH, L1, L2
from .rules import About, Rule

IsScalar = Callable[[Any], bool]  # whether it is an array of the framework, possibly traced
# (argument, prefix tree) -> one entry for each leaf of params; None if the value is a leaf and not a tree
Broadcast = Callable[[str, Any], list[Any] | None]
# (argument, 0-d array, path) -> the array that is used in its place; raises for one that no launch can read
Admit = Callable[[str, Any, str | None], Any]


def check_strength(
    argument: str, value: Any, is_device: IsScalar, path: str | None = None, *, admit: Admit | None = None
) -> Any:
    """A static strength as a finite float >= 0; a 0-d array of the framework as it is, or as `admit` returns it.

    Raises TypeError or ValueError for anything else.
    """
    remedy = "Use a finite float >= 0, a 0-d array of the same framework, a tree of these, by_path or by_leaf"
    usual = type(value) is float
    if not usual and is_device(value):
        if value.ndim != 0:
            raise bad(
                ValueError, argument, f"an array of shape {tuple(value.shape)}",
                "A strength is a scalar; for one per leaf use a tree, by_path or by_leaf", path=path,
            )  # fmt: skip
        if "bool" in str(value.dtype) or "complex" in str(value.dtype):
            raise bad(TypeError, argument, f"an array of dtype {value.dtype}", remedy, path=path)
        return value if admit is None else admit(argument, value, path)
    if not usual:
        if isinstance(value, np.ndarray) and value.ndim:
            raise bad(
                ValueError, argument, f"an array of shape {value.shape}",
                "A strength is a scalar; for one per leaf use a tree, by_path or by_leaf", path=path,
            )  # fmt: skip
        number = as_float(value)
        if number is None:
            shown = value.item() if isinstance(value, (np.ndarray, np.generic)) else value
            raise bad(TypeError, argument, f"{describe(shown)} is not a strength", remedy, path=path)
        value = number
    # False for a NaN. Not isfinite: torch.compile, which may make floats symbols, does not support it
    if not 0 <= value < math.inf:
        raise bad(ValueError, argument, f"the strength {value}", remedy, path=path)
    return value


def as_float(value: Any) -> float | None:
    """A real number of Python or NumPy as a float (inf beyond float64's range); None for anything else."""
    if isinstance(value, np.ndarray):
        value = value[()] if value.ndim == 0 else None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        return float(value)
    except OverflowError:  # an int
        return math.inf if value > 0 else -math.inf


def check_flag(argument: str, value: Any) -> bool:
    """The value if it is a bool. Anything else would be judged by its truth value, by which "no" is True."""
    if not isinstance(value, (bool, np.bool_)):
        raise bad(TypeError, argument, f"{describe(value)} is not a bool", "Use True or False")
    return bool(value)


def is_static_zero(strength: Any) -> bool:
    return isinstance(strength, float) and strength == 0


@dataclass(frozen=True)
class WeightDecay:
    """An l2 that is given as weight decay, which has a ½ in its name: l2 = value / 2."""

    value: Any


def l2_of(l2: Any, weight_decay: Any | None) -> Any:
    """The strength that is meant by l2 and weight_decay, of which only one may be given."""
    if weight_decay is None:
        return l2
    if as_float(l2) != 0:
        raise both_given()
    return WeightDecay(weight_decay)


def both_given() -> Exception:
    """Of l2 and weight_decay."""
    return bad(ValueError, "weight_decay", "it is given beside l2", "Give one of them: weight_decay=wd is l2 = wd / 2")


@dataclass(frozen=True)
class Groups:
    """Leaves of equal strengths: `of_leaf[i]` indexes `l1`, `l2` (one strength per group) and `terms`."""

    of_leaf: tuple[int, ...]
    l1: tuple[Any, ...]
    l2: tuple[Any, ...]
    terms: tuple[int, ...]

    @property
    def leaf_terms(self) -> tuple[int, ...]:
        if len(self.terms) == 1:
            return self.terms * len(self.of_leaf)
        return tuple(self.terms[g] for g in self.of_leaf)


def terms_of(l1: Any, l2: Any) -> int:
    return BOTH & ~(L1 if is_static_zero(l1) else 0) & ~(L2 if is_static_zero(l2) else 0)


def group(leaves: int, l1: Sequence[Any], l2: Sequence[Any]) -> Groups:
    """Group the leaves by distinct pair of strengths: static strengths are equal by value, device scalars by identity.

    A sequence of one strength stands for all leaves.
    """
    if len(l1) == len(l2) == 1:
        return Groups((0,) * leaves, tuple(l1), tuple(l2), (terms_of(l1[0], l2[0]),))
    l1, l2 = (values if len(values) == leaves else [values[0]] * leaves for values in (l1, l2))

    def key(strength: Any) -> tuple[str, Any]:
        return ("value", strength) if isinstance(strength, float) else ("object", id(strength))

    number: dict[Any, int] = {}
    pairs: list[tuple[Any, Any]] = []
    of_leaf = []
    for a, b in zip(l1, l2, strict=True):
        k = (key(a), key(b))
        if k not in number:
            number[k] = len(pairs)
            pairs.append((a, b))
        of_leaf.append(number[k])
    return Groups(
        tuple(of_leaf),
        tuple(a for a, _ in pairs),
        tuple(b for _, b in pairs),
        tuple(terms_of(a, b) for a, b in pairs),
    )


def resolve_mask(value: Any, about: About, counted: Sequence[bool], broadcast: Broadcast) -> list[bool]:
    """Which leaves are selected, of those that are counted at all; `value` is a rule, a tree of bools or a bool."""
    found = value.resolve("mask", about, counted) if isinstance(value, Rule) else broadcast("mask", value)
    each = [value] * len(counted) if found is None else found
    return [
        keep and check_mask_leaf(v, path) for v, keep, path in zip(each, counted, about.paths(), strict=True)
    ]  # fmt: skip


def check_mask_leaf(value: Any, path: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise bad(
            TypeError, "mask", f"{describe(value)} is not a static bool",
            "Use Python bools: which leaves count must be known when the call is traced", path=path,
        )  # fmt: skip
    return bool(value)


def resolve_strengths(
    argument: str,
    value: Any,
    about: About,
    selected: Sequence[bool],
    is_device: IsScalar,
    broadcast: Broadcast,
    *,
    admit: Admit | None = None,
) -> list[Any]:
    """Checked strengths: one for each selected leaf, in order, or a single one for all."""
    if type(value) is float:  # the usual case, before tests for abstract types
        return [check_strength(argument, value, is_device, admit=admit)]
    if isinstance(value, WeightDecay):
        decays = resolve_strengths("weight_decay", value.value, about, selected, is_device, broadcast, admit=admit)
        return [decay / 2 for decay in decays]
    if isinstance(value, Rule):
        found = value.resolve(argument, about, selected)
    else:
        tree = broadcast(argument, value)
        if tree is None:
            return [check_strength(argument, value, is_device, admit=admit)]
        found = tree
    return [
        check_strength(argument, v, is_device, path, admit=admit)
        for v, keep, path in zip(found, selected, about.paths(), strict=True)
        if keep
    ]
