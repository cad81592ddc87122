"""The parameters of an optimizer in a fixed order, and what the penalty needs to know of each.

Looking at 2,000 parameters takes longer than the step itself, so the roster is kept until the parameter groups change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..._core.steps import Step
from ..._core.strengths import Groups
from ..group_strengths import GroupStrengths
from ..inplace import select_to_write
from ..origins import Origins, check_named, key_of
from ..params import Selection
from ..strengths import per_leaf, spread
from ..types import Anchor, Mask
from ..writable import check_writable

if TYPE_CHECKING:
    from ..mesh import Shards


@dataclass(frozen=True)
class Roster:
    """`params` of all groups, and the number of each one's group; `selection` are those that the penalty sees."""

    key: tuple[Any, ...]
    params: list[Tensor]
    owners: list[int]
    selection: Selection
    leaves: list[Tensor]  # what this rank holds of the parameters
    anchors: list[Tensor]  # the leaf itself where the penalty does not see it; empty without an anchor
    shards: Shards | None  # where there are DTensors
    _parts: dict[tuple[Step, ...], list[tuple[Step, list[int]]]] = field(default_factory=dict)

    @staticmethod
    def of(
        optimizer: Optimizer, origins: Origins, strengths: GroupStrengths, mask: Mask | None, anchor: Anchor | None
    ) -> Roster:
        groups = optimizer.param_groups
        params = [p for g in groups for p in g["params"]]
        given = origins.params(optimizer)
        check_named(given, strengths.given, mask, anchor)
        l1, l2 = map(strengths.for_select, ("l1", "l2"))
        s = select_to_write(given, l1, l2, mask, anchor)
        is_whole = len(s.index) == len(params)
        every = replace(s, anchors=[]) if is_whole else select_to_write(given, 0.0, 0.0, None, None)
        check_writable(every, every.params, announce=False)
        owners = [k for k, g in enumerate(groups) for _ in g["params"]]
        anchors: list[Tensor] = []
        if s.anchors:
            anchors = list(every.leaves)
            for i, a in zip(s.index, s.anchors, strict=True):
                anchors[i] = a
        return Roster(key_of(optimizer), params, owners, s, every.leaves, anchors, every.shards)

    @property
    def is_whole(self) -> bool:
        """Whether the penalty sees every parameter."""
        return len(self.selection.index) == len(self.params)

    def with_strengths(self, strengths: GroupStrengths) -> Selection:
        """The selection with the strengths that the groups have now."""
        mine = self.owners if self.is_whole else [self.owners[i] for i in self.selection.index]
        groups: Groups = strengths.of_leaves(self.selection, mine)
        return replace(self.selection, groups=groups)

    def strengths(self, s: Selection, k: int) -> Tensor:
        """l1 (k = 0) or l2 (k = 1) of every parameter, (n,) float64: 0 for those that the penalty does not see."""
        mine = per_leaf(s, k) if s.leaves else torch.zeros(0, dtype=torch.float64, device=self.leaves[0].device)
        if self.is_whole:
            return mine
        every = mine.new_zeros(len(self.params))
        every[torch.tensor(list(self.selection.index), device=mine.device)] = mine
        return every

    def parts(self, kinds: tuple[Step, ...]) -> list[tuple[Step, list[int]]]:
        """Positions by device and kind of step; `kinds` of the groups."""
        if kinds not in self._parts:
            found: dict[tuple[torch.device, Step], list[int]] = {}
            for i, (x, k) in enumerate(zip(self.leaves, self.owners, strict=True)):
                found.setdefault((x.device, kinds[k]), []).append(i)
            self._parts[kinds] = [(kind, index) for (_, kind), index in found.items()]
        return self._parts[kinds]

    def each(self, of_group: Sequence[Any]) -> Tensor:
        """The group's value for every parameter, (n,) float64."""
        values = [v if isinstance(v, Tensor) else float(v) for v in of_group]
        return spread(values, self.owners, self.leaves[0].device)
