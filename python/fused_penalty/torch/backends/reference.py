"""The penalty in plain torch, to read and to fall back on: the twin of `reference.py`.

penalty            Σ_i ( l1 · Σ|x_i| + l2 · Σ x_i² )
penalty_and_grad   the same, and l1 · sign(x_i) + 2 · l2 · x_i with sign(±0) = 0
sums               Σ|x_i| and Σ x_i² for each leaf
prox               S(x_i, step·l1) / (1 + 2·step·l2), S(x, t) = x - clip(x, -t, t)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..._core.operations import Op
from ..._core.plan import BOTH
from ..._core.steps import COLUMNS, Arrays, Step, StepRole
from ..elastic_net import displacements, wide, written
from ..step_formula import stepped


def sums(params: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Compute (Σ|x_i|, Σx_i²) of each leaf.

    Args:
      params: Floating tensors of any shapes.

    Returns:
      Two tensors of shape (leaves,), float64.

    Example:
      >>> from fused_penalty import reference_torch as reference
      >>> reference.sums([torch.tensor([1.0, -2.0])])[1].tolist()
      [5.0]
    """
    found = leaf_sums([wide(x) for x in params])
    return found[:, 0], found[:, 1]


def penalty(params: Iterable[Tensor], l1: float | Tensor = 0.0, l2: float | Tensor = 0.0) -> Tensor:
    """Compute Σ_i ( l1·Σ|x_i| + l2·Σx_i² ).

    Args:
      params: Floating tensors of any shapes.
      l1, l2: Strengths for all leaves: numbers or 0-d tensors.

    Returns:
      A scalar, float64.

    Example:
      >>> from fused_penalty import reference_torch as reference
      >>> float(reference.penalty([torch.tensor([1.0, -2.0])], l1=1.0, l2=0.5))
      5.5
    """
    absolute, square = sums(params)
    return l1 * absolute.sum() + l2 * square.sum()


def penalty_and_grad(
    params: Iterable[Tensor], l1: float | Tensor = 0.0, l2: float | Tensor = 0.0
) -> tuple[Tensor, list[Tensor]]:
    """Compute the penalty and its gradient l1·sign(x_i) + 2·l2·x_i, with sign(±0) = 0.

    Args:
      params: Floating tensors of any shapes.
      l1, l2: Strengths for all leaves: numbers or 0-d tensors.

    Returns:
      The scalar, and gradients like params: a list.

    Example:
      >>> from fused_penalty import reference_torch as reference
      >>> reference.penalty_and_grad([torch.tensor([0.0, -2.0])], l1=1.0, l2=0.5)[1][0].tolist()
      [0.0, -3.0]
    """
    leaves = list(params)
    return penalty(leaves, l1, l2), _map(Op.GRADIENT, leaves, l1, l2)


def prox(
    params: Iterable[Tensor], l1: float | Tensor = 0.0, l2: float | Tensor = 0.0, step: float = 1.0
) -> list[Tensor]:
    """Make the proximal step of the penalty: S(x_i, step·l1) / (1 + 2·step·l2).

    Args:
      params: Floating tensors of any shapes.
      l1, l2: Strengths for all leaves: numbers or 0-d tensors.
      step: The length of the step.

    Returns:
      New tensors, a list.

    Example:
      >>> from fused_penalty import reference_torch as reference
      >>> reference.prox([torch.tensor([0.5, -2.0])], l1=1.0, l2=0.5)[0].tolist()
      [0.0, -0.5]
    """
    return _map(Op.PROX, params, l1, l2, step)


def _map(op: Op, params: Iterable[Tensor], l1: float | Tensor, l2: float | Tensor, step: float = 1.0) -> list[Tensor]:
    found = []
    for x in params:
        pair = [torch.as_tensor(c, dtype=torch.float64, device=x.device) for c in op.coefficients(l1, l2, step)]
        found.append(written(op, x, None, None, torch.stack(pair), BOTH).to(x.dtype))
    return found


# The backend: what fused_penalty.torch calls.


def leaf_sums(ds: Sequence[Tensor]) -> Tensor:
    """(n, 2) float64."""
    f64 = torch.float64
    return torch.stack([torch.stack([d.abs().sum(dtype=f64), (d * d).sum(dtype=f64)]) for d in ds])


def leaf_stats(ds: Sequence[Tensor]) -> Tensor:
    """Σ|d|, Σd², max|d|, zeros and non-finite numbers of each leaf, (n, 5) float64."""
    rows = []
    for d in ds:
        largest = d.abs().max() if d.numel() else d.new_zeros(())
        counts = [(d == 0).sum(), (~d.isfinite()).sum()]
        rows.append(torch.stack([v.to(torch.float64) for v in (largest, *counts)]))
    return torch.cat([leaf_sums(ds), torch.stack(rows)], dim=1)


def launch(
    op: Op,
    xs: list[Tensor],
    anchors: list[Tensor],
    outs: list[Tensor | None],
    coefficients: Tensor | None,
    terms: Sequence[int],
) -> Tensor:
    """See `_core.backends.TorchBackend`."""
    ds = displacements(xs, anchors)
    total = leaf_stats(ds) if op.counts else leaf_sums(ds)
    for i, out in enumerate(outs):
        if out is not None:
            assert coefficients is not None
            anchor = anchors[i] if anchors else None
            # Rounded first: on the CPU torch (2.13) copies float32 into negated float16 with the wrong sign.
            out.copy_(written(op, xs[i], anchor, out, coefficients[i], terms[i]).to(out.dtype))
    return total


def step(step: Step, xs: list[Tensor], anchors: list[Tensor], arrays: Arrays, coefficients: Tensor) -> Tensor:
    """See `_core.backends.TorchBackend`; leaf by leaf."""
    rows = []
    for i, x in enumerate(xs):
        anchor = anchors[i] if anchors else None
        (sums,) = leaf_sums(displacements([x], [] if anchor is None else [anchor]))
        mine = {role: a for role in step.arrays if (a := arrays[role][i]) is not None}
        rest = sums.new_zeros(len(COLUMNS) - 2)
        if step.decides in mine:
            rest = _step_leaf(step, x, anchor, mine, coefficients[i])
        rows.append(torch.cat([sums, rest]))
    return torch.stack(rows)


def _step_leaf(
    step: Step, x: Tensor, anchor: Tensor | None, arrays: dict[StepRole, Tensor], coefficients: Tensor
) -> Tensor:
    """Write the leaf and its state; the columns beside the sums."""
    found = stepped(step, x, anchor, arrays, coefficients)
    scale, skip = coefficients[0], coefficients[-1] != 0
    gradient = wide(arrays.get(StepRole.GRADIENT, x.new_zeros(())))
    gradient = scale.to(gradient.dtype) * gradient
    columns = (
        (gradient * gradient).sum(dtype=torch.float64),
        (found["x"] - wide(x)).square().sum(dtype=torch.float64),
        (found["after"] == 0).sum().to(torch.float64),
        (~gradient.isfinite()).sum().to(torch.float64),
    )
    targets = {"x": x, **{role.value: a for role, a in arrays.items()}}
    for name, target in targets.items():
        if name in found:
            target.copy_(torch.where(skip, target, found[name].to(target.dtype)))
    return torch.where(skip, 0.0, torch.stack(columns))
