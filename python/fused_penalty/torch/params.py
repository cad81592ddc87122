"""Params, strengths, mask and anchor -> the selected leaves with their paths, strengths and anchors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._core.errors import bad, bad_write, describe
from .._core.strengths import Groups, group, resolve_mask, resolve_strengths
from .leaves import Leaves, flatten
from .modes import is_plain, tell_compiler
from .pairing import anchors_of, prefix_tree
from .scalars import admit, is_tensor
from .survey import SUPPORTED, WRITABLE, Survey, Surveyed, Tensors, check_leaves, check_memory, look, read_natively
from .types import Anchor, Mask, Params, Strength

if TYPE_CHECKING:
    from .mesh import Shards

__all__ = [
    "SUPPORTED",
    "WRITABLE",
    "Leaves",
    "Selection",
    "Tensors",
    "is_frozen",
    "is_plain",
    "select",
    "select_all",
    "zeros",
]


@dataclass(slots=True)
class Selection:
    """The flattened params, and what a call needs of those leaves that are selected."""

    all: Leaves
    index: Sequence[int]  # positions of the selected leaves
    leaves: list[Tensor]
    anchors: list[Tensor]  # empty without an anchor
    groups: Groups
    dtype: torch.dtype  # of the result
    by_device: list[Sequence[int]]  # indices into leaves
    shards: Shards | None  # where there are DTensors: leaves are then what this rank holds of them
    read: Any  # the leaves as the native reader has read them, where it could
    argument: str = "params"  # by which errors call the leaves

    @property
    def params(self) -> list[Tensor]:
        """The selected leaves as the caller holds them: DTensors, where `leaves` are parts of them."""
        return self.leaves if self.shards is None else self.shards.tensors

    def local(self, outs: Sequence[Tensor | None]) -> list[Tensor | None]:
        """What this rank holds of outputs that are placed as `params`."""
        return list(outs) if self.shards is None else self.shards.local(outs)

    def check_dtypes(self, written: Iterable[bool]) -> None:
        """Raise for the first leaf of a dtype that no operation writes, where `written` is true."""
        if self.read is not None and self.read.all_writable:
            return
        for x, write, path in zip(self.leaves, written, self.paths(), strict=True):
            if write and x.dtype not in WRITABLE:
                raise bad_write(path, x.dtype, self.argument)

    def paths(self) -> tuple[str, ...]:
        return tuple(_names(self.all, self.index))


def select(
    params: Params, l1: Strength, l2: Strength, mask: Mask | None, anchor: Anchor | None, frozen: str = "count"
) -> Selection:
    """Flatten, mask and check; nothing is computed yet."""
    tell_compiler()
    flat = flatten(params)
    about, selected = flat.about(), [True] * len(flat.tensors)

    def broadcast(argument: str, tree: Any) -> list[Any] | None:
        return prefix_tree(argument, tree, flat)

    if mask is not None:
        tree = mask(params) if callable(mask) and not isinstance(mask, nn.Module) else mask
        selected = resolve_mask(tree, about, selected, broadcast)
    if _skips(frozen):
        selected = [keep and not _is_frozen_leaf(t) for keep, t in zip(selected, flat.tensors, strict=True)]
    index: Sequence[int] = range(len(selected))
    if False in selected:
        index = [i for i, keep in enumerate(selected) if keep]
    leaves = flat.tensors if len(index) == len(selected) else [flat.tensors[i] for i in index]
    survey = read_natively(leaves)
    if survey is None:
        check_leaves(leaves, _names(flat, index))

    strengths = [
        resolve_strengths(name, value, about, selected, is_tensor, broadcast, admit=admit)
        for name, value in (("l1", l1), ("l2", l2))
    ]
    anchors = anchors_of(anchor, flat, index, leaves)
    return _selection("params", flat, index, leaves, anchors, group(len(leaves), *strengths), survey)


def select_all(
    argument: str, flat: Leaves, l1: float, l2: float, check: Callable[[Sequence[Any], Sequence[str]], None]
) -> Selection:
    """Every leaf, each with the same strengths. `check` raises for what cannot be written; it is given the leaves only
    where the native reader has not found them in order."""
    leaves = flat.tensors
    survey = read_natively(leaves)
    if survey is None or not survey[2].all_writable:
        check(leaves, flat.names())
        check_leaves(leaves, flat.names(), argument)
    return _selection(argument, flat, range(len(leaves)), leaves, [], group(len(leaves), [l1], [l2]), survey)


def _selection(
    argument: str,
    flat: Leaves,
    index: Sequence[int],
    leaves: list[Any],
    anchors: list[Any],
    groups: Groups,
    survey: Survey | None,
) -> Selection:
    shards = None
    if survey is None or (anchors and read_natively(anchors) is None):
        names = _names(flat, index)
        shards, leaves, anchors = _unwrap(argument, leaves, anchors, names)
        check_memory(leaves, names, argument)
        check_memory(anchors, names[: len(anchors)], "anchor")
        survey = look(leaves)
    else:
        leaves = Surveyed(leaves, survey[2])
    return Selection(flat, index, leaves, anchors, groups, survey[0], survey[1], shards, survey[2], argument)


def _skips(frozen: Any) -> bool:
    if not isinstance(frozen, str) or frozen not in ("count", "skip"):
        raise bad(
            ValueError, "frozen", f"{describe(frozen)} is unknown",
            'Use "count" (parameters that do not require grad count) or "skip" (they are left out)',
        )  # fmt: skip
    return frozen == "skip"


def _is_frozen_leaf(x: Any) -> bool:
    return isinstance(x, nn.Parameter) and is_frozen(x)


def _names(flat: Leaves, index: Sequence[int]) -> Sequence[str]:
    names = flat.names()
    return names if len(index) == len(names) else [names[i] for i in index]


def is_frozen(x: Tensor) -> bool:
    """Whether a parameter does not learn: it counts, but nothing is computed or written for it."""
    return not x.requires_grad and type(x) is not Tensor and isinstance(x, nn.Parameter)  # the slow test last


def _unwrap(
    argument: str, leaves: list[Any], anchors: list[Any], names: Sequence[str]
) -> tuple[Shards | None, list[Any], list[Any]]:
    """What this rank holds of DTensors. There are none where torch.distributed.tensor is not imported."""
    if "torch.distributed.tensor" in sys.modules:
        from .mesh import DTensor, unwrap

        if any(isinstance(x, DTensor) for x in (*leaves, *anchors)):
            return unwrap(leaves, anchors, names, argument)
    return None, leaves, anchors


def zeros(*shape: int) -> Tensor:
    """The result if no leaf is selected, whatever the default dtype and device."""
    return torch.zeros(shape, dtype=torch.float32, device="cpu")
