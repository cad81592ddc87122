"""An optimizer's step on the leaves of all devices: one launch for each device and kind of step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._core import backends
from .._core.steps import COEFFICIENTS, COLUMNS, Arrays, Step
from .strengths import is_step

Columns = dict[str, Tensor]  # coefficients by name, (n,) float64; those that are missing are 0
Parts = Sequence[tuple[Step, Sequence[int]]]  # a kind of step, and the positions of leaves on one device


def proximal_columns(length: Tensor, l1: Tensor, l2: Tensor) -> Columns:
    """The coefficients of a proximal step of that length; NaN where there is no such step (`is_step`)."""
    length = torch.where(is_step(l1, l2, length), length, torch.nan)
    return {"threshold": length * l1, "pull": 2 * length * l2}


def matrix(columns: Columns) -> Tensor:
    """(n, len(COEFFICIENTS)) float64, as a launch takes them."""
    zero = torch.zeros_like(next(iter(columns.values())))
    return torch.stack([columns.get(name, zero) for name in COEFFICIENTS], dim=1)


def run_steps(
    parts: Parts, xs: list[Tensor], anchors: list[Tensor], arrays: Arrays, coefficients: Tensor, backend: str | None
) -> Tensor:
    """Write the leaves and their state; the totals (n, len(COLUMNS)) float64 on the device of the coefficients."""
    if len(parts) == 1:
        return _launch(parts[0][0], xs, anchors, arrays, coefficients, backend)
    totals = coefficients.new_empty((len(xs), len(COLUMNS)))
    for kind, index in parts:
        device = xs[index[0]].device
        rows = torch.stack([coefficients[i] for i in index]).to(device)
        mine = {role: [arrays[role][i] for i in index] for role in kind.arrays}
        near = [anchors[i] for i in index] if anchors else []
        found = _launch(kind, [xs[i] for i in index], near, mine, rows, backend).to(totals.device)
        for i, total in zip(index, found, strict=True):
            totals[i] = total
    return totals


def _launch(
    kind: Step, xs: list[Tensor], anchors: list[Tensor], arrays: Arrays, coefficients: Tensor, backend: str | None
) -> Tensor:
    row = backends.choose("torch", backend, xs[0].device.type, steps=True)
    found: Tensor = row.launcher().step(kind, xs, anchors, arrays, coefficients)
    return found
