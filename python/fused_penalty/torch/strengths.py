"""Strengths as tensors: what the user gives, the coefficients of an operation, the penalty from sums and strengths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core import backends
from .._core.operations import Op, Role
from . import calculus as core
from .backends.tables import Place, Tables
from .params import Selection, is_plain
from .scalars import as_double


def requested(backend: str | None) -> str | None:
    return backends.requested("torch", backend)


_STATIC = Tables(64)  # one copy to the device for each list of values; capturing a graph does not repeat it


def _static(values: tuple[float, ...], device: torch.device) -> Tensor:
    if not is_plain():
        return torch.tensor(values, dtype=torch.float64, device=device)
    with torch.inference_mode(False):
        words = _STATIC.find(Place.current(device), values, lambda: np.array(values, np.float64).view(np.int64))
        return words.view(torch.float64)


def spread(values: Sequence[Any], of_leaf: Sequence[int], device: torch.device) -> Tensor:
    """`values[of_leaf[i]]` for each leaf i, (n,) float64 on the device.

    Floats are filled in, or copied when they are new, so a step whose values did not change copies nothing.
    """
    n = len(of_leaf)
    if all(isinstance(v, float) for v in values):
        if len(set(values)) == 1:
            return torch.full((n,), values[0], dtype=torch.float64, device=device)
        each = tuple(values[g] for g in of_leaf)
        if torch.jit.is_tracing():  # which warns of torch.tensor
            return torch.stack([as_double(v, device) for v in each])
        return _static(each, device)
    scalars = [as_double(v, device) for v in values]
    runs = [(g, len(list(run))) for g, run in itertools.groupby(of_leaf)]
    return torch.cat([scalars[g].expand(k) for g, k in runs])


def per_leaf(s: Selection, k: int) -> Tensor:
    """The strengths l1 (k = 0) or l2 (k = 1) of the leaves, (n,) float64."""
    return spread((s.groups.l1, s.groups.l2)[k], s.groups.of_leaf, s.leaves[0].device)


def coefficients_of(op: Op, s: Selection, step: float | Tensor = 1.0) -> Tensor:
    """(a, b) of the operation for each leaf, (n, 2) float64; `step` is a float >= 0, or float64 for all or each leaf.

    For an operation that writes the leaf itself both are NaN where the step or a strength is negative or NaN: there is
    no such step, a device scalar cannot be refused (it is not read on the host), and the formula would give plausible
    numbers.
    """
    l1, l2 = per_leaf(s, 0), per_leaf(s, 1)
    found = torch.stack(op.coefficients(l1, l2, step), dim=1)
    if op.writes is not Role.X:
        return found
    return torch.where(is_step(l1, l2, step).unsqueeze(-1), found, torch.nan)


def is_step(l1: Tensor, l2: Tensor, length: float | Tensor) -> Tensor:
    """Whether there is such a step: neither a strength nor the length is negative or NaN. A float has been checked."""
    least = torch.minimum(l1, l2)
    return (torch.minimum(least, length) if isinstance(length, Tensor) else least) >= 0


def value_of(s: Selection, total: Tensor) -> Tensor:
    """The penalty, in the dtype of the result."""
    return combine(s, total).to(s.dtype)


def combine(s: Selection, total: Tensor) -> Tensor:
    """Σ_i ( l1_i·S_i0 + l2_i·S_i1 ) in float64; a zero strength removes its term even if S is not finite."""
    each = (s.groups.l1, s.groups.l2)
    static = [k for k, strengths in enumerate(each) if len(strengths) == 1 and isinstance(strengths[0], float)]
    parts = [core.scale(per_leaf(s, k), total[:, k]).sum() for k in (0, 1) if k not in static]
    live = [k for k in static if each[k][0] != 0]
    if live:
        sums = total.sum(0).unbind()
        parts += [each[k][0] * sums[k] for k in live]
    if len(parts) == 2:
        return parts[0] + parts[1]
    return parts[0] if parts else total.new_zeros(())
