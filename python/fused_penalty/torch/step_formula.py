"""One element's step of an optimizer with the penalty in it, in torch: the twin of kernels/step_formula.h."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import torch
from torch import Tensor

from .._core.steps import COEFFICIENTS, Step, StepRole
from .elastic_net import clip, displacements, sign, wide

Arrays = Mapping[StepRole, Tensor]


def stepped(step: Step, x: Tensor, anchor: Tensor | None, arrays: Arrays, coefficients: Tensor) -> dict[str, Tensor]:
    """What the step writes, in float32 or wider: "x" and the state by role, and the displacement after it ("after").

    `coefficients` (16,) float64, in the order of `_core.steps.COEFFICIENTS`.
    """
    (d,) = displacements([x], [] if anchor is None else [anchor])
    c = SimpleNamespace(**dict(zip(COEFFICIENTS, coefficients.to(d.dtype).unbind(), strict=True)))
    c.inverse = (1 / (1 + coefficients[COEFFICIENTS.index("pull")])).to(d.dtype)
    old = {role: wide(a) for role, a in arrays.items()}
    found, along, start = {}, None, wide(x)
    if step in (Step.SGD, Step.MOMENTUM):
        along = _seen_gradient(start, d, old[StepRole.GRADIENT], c)
        if step is Step.MOMENTUM:
            momentum = found["first"] = c.keep * old[StepRole.FIRST] + c.take * along
            along = torch.where(c.look != 0, along + c.look * momentum, momentum)
    elif step in (Step.ADAM, Step.AMSGRAD):
        u = _seen_gradient(start, d, old[StepRole.GRADIENT], c)
        first = found["first"] = old[StepRole.FIRST] + c.take * (u - old[StepRole.FIRST])
        second = found["second"] = c.keep * old[StepRole.SECOND] + c.rest * u * u
        if step is Step.AMSGRAD:
            second = found["maximum"] = torch.maximum(old[StepRole.MAXIMUM], second)
        along = first * _reciprocal(second, c)
    else:
        second = old[StepRole.SECOND]
    z = start if along is None else c.shrink * start - c.rate * along
    origin = torch.zeros_like(d) if anchor is None else wide(anchor)
    after = z - origin
    pulled = (after - clip(after, c.threshold)) * c.inverse
    if StepRole.SECOND in step.arrays:
        reciprocal = _reciprocal(second, c)
        inside = (after - clip(after, c.threshold * reciprocal)) / (1 + c.pull * reciprocal)
        pulled = torch.where(c.metric != 0, torch.where(second == 0, after, inside), pulled)
    active = (c.threshold != 0) | (c.pull != 0)
    found["after"] = torch.where(active, pulled, after)
    found["x"] = torch.where(active, origin + pulled, z)
    return found


def _reciprocal(second: Tensor, c: SimpleNamespace) -> Tensor:
    return 1 / (c.root * second.sqrt() + c.epsilon)


def _seen_gradient(x: Tensor, d: Tensor, gradient: Tensor, c: SimpleNamespace) -> Tensor:
    u = c.scale * gradient
    for strength, direction in ((c.l1, sign(d)), (c.l2, d), (c.decay, x)):
        u = torch.where(strength != 0, u + strength * direction, u)  # not 0·d, which is NaN for an infinite d
    return u
