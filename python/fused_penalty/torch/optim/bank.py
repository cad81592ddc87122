"""The state of an optimizer's parameters, ready for the launch: a list of tensors for each role.

torch keeps a dict for each parameter. Looking thousands of them up by parameter takes longer than the step, so the bank
keeps the dicts in the order of the roster for as long as they are those that the optimizer has.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..._core.steps import StepRole
from .roster import Roster

Names = Mapping[StepRole, str]  # of the entries of one parameter's state


class Bank:
    """The state of the parameters of `roster`; `names` of each group."""

    def __init__(self, state: Any, roster: Roster, names: Sequence[Names]) -> None:
        self._state, self._roster, self.names = state, roster, list(names)
        self._of = [state.get(p, {}) for p in roster.params]  # a new dict where there is none: `fill` puts it in
        self._snapshot = list(state.values())
        self._views: list[Tensor] = []
        self._count: Tensor | None = None
        self._complete = False  # whether every state has its count

    def is_current(self, state: Any, roster: Roster, names: Sequence[Names]) -> bool:
        return (
            state is self._state
            and roster is self._roster
            and self.names == list(names)
            and len(state) == len(self._snapshot)
            and all(map(operator.is_, state.values(), self._snapshot))
        )

    def fill(self, moves: Sequence[bool], *, all_move: bool) -> list[bool]:
        """Make the missing entries of parameters with a gradient; tells whose were missing."""
        wanted = [frozenset(n.values()) for n in self.names]
        if all_move and all(map(frozenset.issubset, map(wanted.__getitem__, self._roster.owners), self._of)):
            return [False] * len(moves)
        made = []
        for p, mine, k, move in zip(self._roster.params, self._of, self._roster.owners, moves, strict=True):
            missing = [name for name in self.names[k].values() if mine.get(name) is None] if move else []
            if missing and not mine:
                self._state[p] = mine
                self._snapshot.append(mine)
            for name in missing:
                mine[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
            made.append(bool(missing))
        return made

    def arrays(self, moves: Sequence[bool], *, all_move: bool) -> dict[StepRole, list[Tensor | None]]:
        """For each role the tensors of all parameters; None for those that have none or do not move."""
        found: dict[StepRole, list[Tensor | None]] = {}
        owners = self._roster.owners
        for role in {role for n in self.names for role in n}:
            each = {n.get(role) for n in self.names}
            if all_move and len(each) == 1:
                found[role] = list(map(operator.itemgetter(each.pop()), self._of))
            else:
                found[role] = [
                    mine[self.names[k][role]] if move and role in self.names[k] else None
                    for mine, k, move in zip(self._of, owners, moves, strict=True)
                ]
        return found

    def advance(self, moves: Sequence[bool], device: torch.device, ok: Tensor | None, *, all_move: bool) -> Tensor:
        """Count a step of the parameters that move; the counts of all, (n,) float32 on the device.

        The entries `step` are 0-d float32 tensors, as torch.optim has them, but views of one tensor: thousands are
        counted by one addition.
        """
        if self._count is None or self._count.device != device or not self._has_our_counts():
            self._gather(device)
        assert self._count is not None
        one: Any = 1.0 if ok is None else ok.to(device, torch.float32)
        if not all_move:
            one = one * torch.tensor(moves, dtype=torch.float32, device=device)
        self._count += one
        for mine, view, move in zip(self._of, self._views, moves, strict=True) if not self._complete else ():
            if move:
                mine["step"] = view
        self._complete = self._complete or all_move
        return self._count

    def _has_our_counts(self) -> bool:
        if self._complete:
            return all(map(operator.is_, map(operator.itemgetter("step"), self._of), self._views))
        return all(mine.get("step", view) is view for mine, view in zip(self._of, self._views, strict=True))

    def _gather(self, device: torch.device) -> None:
        values = [float(mine.get("step", 0.0)) for mine in self._of]
        self._count = torch.tensor(values, dtype=torch.float32, device=device)
        self._views = list(self._count.unbind())
        self._complete = all("step" in mine for mine in self._of)
        for mine, view in zip(self._of, self._views, strict=True):
            if "step" in mine:
                mine["step"] = view
