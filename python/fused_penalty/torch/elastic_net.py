"""The mathematics of one element in torch: the twin of kernels/elastic_net.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._core.operations import Op
from .._core.plan import L1, L2


def wide(x: Tensor) -> Tensor:
    """x in float32 or wider, in which an element is computed."""
    return x if x.dtype == torch.float64 else x.float()


def displacements(xs: Sequence[Tensor], anchors: Sequence[Tensor]) -> list[Tensor]:
    """x - anchor, in float32 or wider."""
    if not anchors:
        return [wide(x) for x in xs]
    return [wide(x) - wide(a) for x, a in zip(xs, anchors, strict=True)]


def sign(d: Tensor) -> Tensor:
    """sign(d), where ±0 and NaN stay what they are (torch.sign makes them 0)."""
    return torch.where(d.isnan(), d, d.sign().copysign(d))


def subgradient(d: Tensor, a: Tensor, b: Tensor, terms: int) -> Tensor:
    """a·sign(d) + b·d, without a term that is statically absent (0·inf would be NaN)."""
    first = a * sign(d) if terms & L1 else torch.zeros_like(d)
    second = b * d if terms & L2 else torch.zeros_like(d)
    return first + second


def clip(d: Tensor, limit: Tensor) -> Tensor:
    """d limited to [-limit, limit]; a NaN stays. d - clip(d, t) is the soft threshold, exactly 0 within the limits."""
    return torch.where(d > limit, limit, torch.where(d < -limit, -limit, d))


def written(op: Op, x: Tensor, anchor: Tensor | None, old: Tensor | None, coefficients: Tensor, terms: int) -> Tensor:
    """What the operation writes for each element, in float32 or wider; `old` is a gradient that exists already."""
    (d,) = displacements([x], [] if anchor is None else [anchor])
    a, b = coefficients.to(d.dtype).unbind()
    if op is Op.GRADIENT:
        return subgradient(d, a, b, terms)
    if op is Op.ADD_GRADIENT:
        assert old is not None
        return wide(old) + subgradient(d, a, b, terms)
    if op is Op.PROX:
        origin = torch.zeros_like(d) if anchor is None else wide(anchor)
        return origin + b * (d - clip(d, a))
    if op is Op.REGULARIZE:
        shrunk = wide(x) - clip(d, a)
        return shrunk - b * d if terms & L2 else shrunk
    raise NotImplementedError(f"{op.name} has no formula in PyTorch")
