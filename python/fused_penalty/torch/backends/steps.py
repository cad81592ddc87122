"""An optimizer's step on the tensors of one device: by a native launch on dense memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import _cpu
from ..._core.steps import Arrays, Step, StepRole
from .native import Held, copied, differing, negated

Read = _cpu.Tensors | None


@dataclass(frozen=True)
class HeldStep:
    """The arrays of one launch, in dense memory and in one order of elements; see `native.Buffers`."""

    x: Held
    anchor: Held | None
    arrays: Mapping[StepRole, Held]

    @property
    def device(self) -> torch.device:
        leaf = self.x.tensors[0]
        assert leaf is not None
        return leaf.device

    def reads(self) -> tuple[Read, Read, Read, Read, Read]:
        """The anchor and the arrays of all roles, as the modules `_cpu` and `_cuda` take them."""
        of = self.arrays.get
        held = (self.anchor, of(StepRole.GRADIENT), of(StepRole.FIRST), of(StepRole.SECOND), of(StepRole.MAXIMUM))
        anchor, gradient, first, second, maximum = (None if h is None else h.read for h in held)
        return anchor, gradient, first, second, maximum


Enqueue = Callable[[Step, HeldStep, Tensor], Tensor]


def launch(
    enqueue: Enqueue, step: Step, xs: list[Tensor], anchors: list[Tensor], arrays: Arrays, coefficients: Tensor
) -> Tensor:
    """Launch; arrays with gaps, lazily negated ones and those that order their elements differently from their leaf go
    through copies, which are written back."""
    copies: list[tuple[Tensor, Tensor]] = []

    def held(tensors: Sequence[Tensor | None], like: Held | None, written: bool, made: bool = False) -> Held:
        found = Held.of(tensors, like)
        odd = set(found.read.irregular) if like is None else differing(like, found)
        odd |= set() if made else negated(tensors)  # what an optimizer has made is not negated
        if not odd:
            return found
        dense = list(tensors)
        for i in odd:
            old = tensors[i]
            if old is None:
                continue
            leaf = old if like is None else like.tensors[i]
            target = dense[i] = copied(old, leaf)
            if written:
                copies.append((old, target))
        return Held.of(dense, like)

    x = held(xs, None, written=True)
    anchor = held(anchors, x, written=False) if anchors else None
    others = {
        role: held(arrays[role], x, written=role in step.written, made=role in step.state) for role in step.arrays
    }
    total = enqueue(step, HeldStep(x, anchor, others), coefficients)
    for old, target in copies:
        old.copy_(target)
    return total
