"""The proximal step in the metric of an adaptive optimizer, after its own step: what `attach` does in `mode="prox"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._core.errors import bad
from .._core.steps import Step, StepRole
from .metrics import Metric, Rule
from .params import Selection
from .scalars import as_double
from .steps import matrix, proximal_columns, run_steps
from .strengths import per_leaf, value_of
from .writable import check_writable


def step_in_metric(
    optimizer: Optimizer,
    rule: Rule,
    s: Selection,
    owners: Sequence[int],
    outs: Sequence[Tensor | None],
    overflow: Tensor | None,
    backend: str | None,
) -> Tensor:
    """Write `outs` (None for a leaf that is only read); the penalty of what was read, a detached scalar.

    `owners`: the number of each leaf's group; `overflow` > 0: GradScaler has skipped the optimizer's step.
    """
    groups, device = optimizer.param_groups, s.leaves[0].device
    metrics: list[Metric | None] = [
        None if out is None or not optimizer.state.get(p) else rule(groups[k], optimizer.state[p])
        for p, k, out in zip(s.params, owners, outs, strict=True)
    ]
    check_writable(s, [out if m is not None else None for out, m in zip(outs, metrics, strict=True)])
    seconds = s.local([None if m is None else m.second for m in metrics])
    for path, x, second in zip(s.paths(), s.leaves, seconds, strict=True):
        if second is not None and second.shape != x.shape:
            raise bad(
                ValueError, "metric", f"the optimizer's state has shape {list(second.shape)}, not its parameter's",
                'Pass metric="euclidean" to attach, or use mode="grad"', path=path,
            )  # fmt: skip
    l1, l2 = per_leaf(s, 0), per_leaf(s, 1)
    length = _column([0.0 if m is None else m.length for m in metrics], device)
    columns = {
        **proximal_columns(length, l1, l2),
        "root": _column([1.0 if m is None else m.root for m in metrics], device),
        "epsilon": _column([1.0 if m is None else m.epsilon for m in metrics], device),
        "metric": torch.ones_like(l1),
    }
    if overflow is not None:
        columns["skip"] = (overflow.to(device) > 0).to(torch.float64).expand_as(l1)
    parts = [(Step.PROX_METRIC, index) for index in s.by_device]
    totals = run_steps(parts, s.leaves, s.anchors, {StepRole.SECOND: seconds}, matrix(columns), backend)[:, :2]
    return value_of(s, totals if s.shards is None else s.shards.all_reduce(totals))


def _column(values: Sequence[Any], device: torch.device) -> Tensor:
    """(n,) float64. The steps of all parameters are mostly the same few tensors or floats."""
    if all(isinstance(v, (int, float)) for v in values):
        return torch.tensor(values, dtype=torch.float64, device=device)
    return torch.stack([as_double(v, device).reshape(()) for v in values])
