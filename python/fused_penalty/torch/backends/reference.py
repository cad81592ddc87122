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
from ..elastic_net import displacements, wide, written


def sums(params: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """(Σ|x_i|, Σx_i²), each of shape (leaves,), in float64.

    >>> from fused_penalty import reference_torch as reference
    >>> reference.sums([torch.tensor([1.0, -2.0])])[1].tolist()
    [5.0]
    """
    found = leaf_sums([wide(x) for x in params])
    return found[:, 0], found[:, 1]


def penalty(params: Iterable[Tensor], l1: float | Tensor = 0.0, l2: float | Tensor = 0.0) -> Tensor:
    """Σ_i ( l1·Σ|x_i| + l2·Σx_i² ), a scalar in float64.

    >>> from fused_penalty import reference_torch as reference
    >>> float(reference.penalty([torch.tensor([1.0, -2.0])], l1=1.0, l2=0.5))
    5.5
    """
    absolute, square = sums(params)
    return l1 * absolute.sum() + l2 * square.sum()


def penalty_and_grad(
    params: Iterable[Tensor], l1: float | Tensor = 0.0, l2: float | Tensor = 0.0
) -> tuple[Tensor, list[Tensor]]:
    """The penalty and its gradient, a list.

    >>> from fused_penalty import reference_torch as reference
    >>> reference.penalty_and_grad([torch.tensor([0.0, -2.0])], l1=1.0, l2=0.5)[1][0].tolist()
    [0.0, -3.0]
    """
    leaves = list(params)
    return penalty(leaves, l1, l2), _map(Op.GRADIENT, leaves, l1, l2)


def prox(
    params: Iterable[Tensor], l1: float | Tensor = 0.0, l2: float | Tensor = 0.0, step: float = 1.0
) -> list[Tensor]:
    """The proximal step of the penalty, new tensors.

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


def launch_sums(xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
    """Σ|d| and Σd² of each leaf, (n, 2) float64, d = x - anchor."""
    return leaf_sums(displacements(xs, anchors))


def launch_gradients(
    xs: list[Tensor], anchors: list[Tensor], strengths: Tensor, terms: Sequence[int], live: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """(sums, gradients of the leaves in `live`); strengths (n, 2) are the factors of sign(d) and of d."""
    outs: list[Tensor | None] = [None] * len(xs)
    gradients = []
    for i in live:
        outs[i] = gradient = torch.empty_like(xs[i])
        gradients.append(gradient)
    return launch_update(Op.GRADIENT, xs, anchors, outs, strengths, terms), gradients


def launch_stats(xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
    """Σ|d|, Σd², max|d|, zeros and non-finite numbers of each leaf, (n, 5) float64."""
    ds = displacements(xs, anchors)
    rows = []
    for d in ds:
        largest = d.abs().max() if d.numel() else d.new_zeros(())
        counts = [(d == 0).sum(), (~d.isfinite()).sum()]
        rows.append(torch.stack([v.to(torch.float64) for v in (largest, *counts)]))
    return torch.cat([leaf_sums(ds), torch.stack(rows)], dim=1)


def launch_update(
    op: Op,
    xs: list[Tensor],
    anchors: list[Tensor],
    outs: list[Tensor | None],
    strengths: Tensor,
    terms: Sequence[int],
) -> Tensor:
    """Writes each of `outs` (None: that leaf is only read), returns the sums of what was read."""
    ds = displacements(xs, anchors)
    total = leaf_sums(ds)
    for i, (x, out) in enumerate(zip(xs, outs, strict=True)):
        if out is not None:
            anchor = anchors[i] if anchors else None
            # Rounded first: on the CPU torch (2.13) copies float32 into negated float16 with the wrong sign.
            out.copy_(written(op, x, anchor, out, strengths[i], terms[i]).to(out.dtype))
    return total
