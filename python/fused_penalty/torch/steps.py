"""An optimizer's step on the leaves of all devices: one launch for each device and kind of step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .._core import backends
from .._core.steps import COLUMNS, Step, StepRole

Arrays = Mapping[StepRole, Sequence[Tensor | None]]
Parts = Sequence[tuple[Step, Sequence[int]]]  # a kind of step, and the positions of leaves on one device


def run_steps(
    parts: Parts, xs: list[Tensor], anchors: list[Tensor], arrays: Arrays, coefficients: Tensor, backend: str | None
) -> Tensor:
    """Write the leaves and their state; the totals (n, len(COLUMNS)) float64 on the device of the coefficients.

    `arrays`: for each role a list like `xs`, with None for a leaf that has none or is only read.
    """
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
