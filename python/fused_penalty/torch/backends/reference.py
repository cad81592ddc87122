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

from ..._core.plan import L1, L2, Op


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def sums(params: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """(Σ|x_i|, Σx_i²), each of shape (leaves,), in float64.

    >>> from fused_penalty import reference_torch as reference
    >>> reference.sums([torch.tensor([1.0, -2.0])])[1].tolist()
    [5.0]
    """
    found = leaf_sums([_wide(x) for x in params])
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
    gradients = [(l1 * sign(_wide(x)) + 2 * l2 * _wide(x)).to(x.dtype) for x in leaves]
    return penalty(leaves, l1, l2), gradients


def prox(
    params: Iterable[Tensor], l1: float | Tensor = 0.0, l2: float | Tensor = 0.0, step: float = 1.0
) -> list[Tensor]:
    """The proximal step of the penalty, new tensors.

    >>> from fused_penalty import reference_torch as reference
    >>> reference.prox([torch.tensor([0.5, -2.0])], l1=1.0, l2=0.5)[0].tolist()
    [0.0, -0.5]
    """
    shrink = 1 + 2 * step * l2
    found = []
    for x in params:
        limit = torch.as_tensor(step * l1, dtype=torch.float64, device=x.device)
        found.append(((_wide(x) - clip(_wide(x), limit)) / shrink).to(x.dtype))
    return found


# The backend: what fused_penalty.torch calls.


def sign(d: Tensor) -> Tensor:
    """sign(d), where a NaN stays one (torch.sign makes it 0)."""
    return torch.where(d.isnan(), d, d.sign())


def clip(d: Tensor, limit: Tensor) -> Tensor:
    """d limited to [-limit, limit]; a NaN stays. d - clip(d, t) is the soft threshold, exactly 0 within the limits."""
    return torch.where(d > limit, limit, torch.where(d < -limit, -limit, d))


def displacements(xs: Sequence[Tensor], anchors: Sequence[Tensor]) -> list[Tensor]:
    """x - anchor, in float32 or wider."""
    if not anchors:
        return [_wide(x) for x in xs]
    return [_wide(x) - _wide(a) for x, a in zip(xs, anchors, strict=True)]


def leaf_sums(ds: Sequence[Tensor]) -> Tensor:
    """(n, 2) float64."""
    f64 = torch.float64
    return torch.stack([torch.stack([d.abs().sum(dtype=f64), (d * d).sum(dtype=f64)]) for d in ds])


def leaf_gradient(d: Tensor, strengths: Tensor, terms: int, like: Tensor) -> Tensor:
    """a·sign(d) + b·d for strengths (a, b), without a term that is statically absent."""
    return _term_gradient(d, strengths, terms).to(like.dtype)


def _term_gradient(d: Tensor, strengths: Tensor, terms: int) -> Tensor:
    a, b = strengths.to(d.dtype).unbind()
    gradient = torch.zeros_like(d)
    if terms & L1:
        gradient = gradient + a * sign(d)
    if terms & L2:
        gradient = gradient + b * d
    return gradient


def launch_sums(xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
    """Σ|d| and Σd² of each leaf, (n, 2) float64, d = x - anchor."""
    return leaf_sums(displacements(xs, anchors))


def launch_gradients(
    xs: list[Tensor], anchors: list[Tensor], strengths: Tensor, terms: Sequence[int], live: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """(sums, gradients of the leaves in `live`); strengths (n, 2) are the factors of sign(d) and of d."""
    ds = displacements(xs, anchors)
    return leaf_sums(ds), [leaf_gradient(ds[i], strengths[i], terms[i], xs[i]) for i in live]


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
    """In place: writes each of `outs` (None: that leaf is only read), returns the sums of what was read."""
    ds = displacements(xs, anchors)
    total = leaf_sums(ds)
    for i, (x, d, out) in enumerate(zip(xs, ds, outs, strict=True)):
        if out is None:
            continue
        a, b = strengths[i].to(d.dtype).unbind()
        if op == Op.ADD_GRADIENT:
            found = _wide(out) + _term_gradient(d, strengths[i], terms[i])
        elif op == Op.PROX:
            origin = _wide(anchors[i]) if anchors else torch.zeros_like(d)
            found = origin + b * (d - clip(d, a))
        else:
            shrunk = _wide(x) - clip(d, a)
            found = shrunk - b * d if terms[i] & L2 else shrunk
        # Rounded first: on the CPU torch (2.13) copies float32 into negated float16 with the wrong sign.
        out.copy_(found.to(out.dtype))
    return total
