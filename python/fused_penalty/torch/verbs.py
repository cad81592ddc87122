"""The verbs that only read: `penalty`, `penalty_and_grad`, `sums`, `stats`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import calculus as core
from .params import Params, Selection, is_frozen, select
from .strengths import combine, gather, per_leaf, requested, take

__all__ = ["Stats", "Sums", "penalty", "penalty_and_grad", "stats", "sums"]


class Sums(NamedTuple):
    """Σ|x| and Σx² of each selected leaf, shape (n,) each, and the leaves' names."""

    abs: Tensor
    square: Tensor
    paths: tuple[str, ...]


class Stats(NamedTuple):
    """Of each selected leaf: Σ|x|, Σx², max|x|, zeros, non-finite numbers, size; shape (n,) each. And the names."""

    abs: Tensor
    square: Tensor
    max: Tensor
    zeros: Tensor  # int64, like the next
    nonfinite: Tensor
    size: tuple[int, ...]
    paths: tuple[str, ...]


def penalty(
    params: Params,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    mask: Any = None,
    anchor: Any = None,
    backend: str | None = None,
) -> Tensor:
    """The elastic-net penalty P = Σ_i ( l1_i·Σ|x_i| + l2_i·Σx_i² ), in one launch a device.

    Differentiable to any order in params, strengths and anchor, in reverse and forward mode; works under
    torch.compile(fullgraph=True), torch.func, autocast and inference_mode. Frozen parameters are counted and
    get no gradient.

    Args:
      params: float16, bfloat16, float32 or float64 tensors of any shape and strides (see the module's text).
      l1, l2: strengths >= 0: a scalar, a 0-d tensor (may be learned), a mapping from names or leading parts of
        names to these (a list for a list), `fused_penalty.by_path` or `by_leaf`. A static 0 removes its term
        from value and gradient.
      mask: a bool, such a mapping of bools, or a callable of params that returns one; False leaves a leaf out.
      anchor: tensors that pair with params; the penalty is then of x - anchor.
      backend: "cuda", "cpu", "triton", "reference" or None for the best one of each device.

    Returns:
      A scalar on the first leaf's device: float32, or float64 if any selected leaf is float64.

    Raises:
      TypeError: a selected leaf that is no dense float tensor; a strength or mask entry of a wrong type.
      ValueError: a negative or non-finite static strength; trees that do not match; an unknown backend; DTensors
        placed as Partial, or lists that differ from rank to rank.

    Source: Zou & Hastie, "Regularization and variable selection via the elastic net", 2005 (without the ½).

    >>> import torch
    >>> from fused_penalty.torch import penalty
    >>> params = {"w": torch.tensor([0.5, -1.2, 0.8]), "b": torch.tensor([0.2, -0.1])}
    >>> round(float(penalty(params, l1={"w": 0.01, "b": 0.005}, l2={"w": 0.001, "b": 0.0005})), 6)
    0.028855
    """
    s = select(params, l1, l2, mask, anchor)
    backend = requested(backend)
    if not s.leaves:
        return torch.zeros((), dtype=torch.float32, device="cpu")
    return combine(s, _sums(s, backend)).to(s.dtype)


def penalty_and_grad(
    params: Params,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    mask: Any = None,
    anchor: Any = None,
    backend: str | None = None,
) -> tuple[Tensor, list[Tensor | None] | dict[str, Tensor | None]]:
    """The penalty and its gradient l1_i·sign(x_i) + 2·l2_i·x_i in one launch a device: one read, one write.

    Arguments and errors are those of `penalty`. Nothing is recorded for autograd: value and gradients are
    detached.

    Returns:
      (P, gradients): a list for an iterable, a dict by name for a Module, a mapping or (name, tensor) pairs.
      Each gradient has the shape and dtype of its leaf (and its strides, if these are dense), computed in
      float32 or wider and rounded once. None for a masked leaf and for a frozen parameter (an `nn.Parameter`
      that requires no grad), which is counted all the same.

    >>> import torch
    >>> from fused_penalty.torch import penalty_and_grad
    >>> value, grads = penalty_and_grad([torch.tensor([0.0, -2.0])], l1=1.0, l2=0.5)
    >>> float(value), grads[0].tolist()
    (4.0, [0.0, -3.0])
    """
    s = select(params, l1, l2, mask, anchor)
    backend = requested(backend)
    chosen: dict[int, Tensor] = {}
    value = torch.zeros((), dtype=torch.float32, device="cpu")
    if s.leaves:
        with torch.no_grad():
            total, chosen = _gradients(s, backend)
            value = combine(s, total).to(s.dtype)
    grads = [chosen.get(i) for i in range(len(s.all.tensors))]
    return value, grads if s.all.keys is None else dict(zip(s.all.keys, grads, strict=True))


def sums(params: Params, *, mask: Any = None, anchor: Any = None, backend: str | None = None) -> Sums:
    """Σ|x_i| and Σx_i² of each selected leaf, in one launch a device. Differentiable.

    Arguments and errors are those of `penalty`.

    >>> import torch
    >>> from fused_penalty.torch import sums
    >>> s = sums({"a": torch.tensor([3.0, -4.0]), "b": torch.tensor(2.0)})
    >>> s.abs.tolist(), s.square.tolist(), s.paths
    ([7.0, 2.0], [25.0, 4.0], ('a', 'b'))
    """
    s = select(params, 1.0, 1.0, mask, anchor)
    backend = requested(backend)
    if not s.leaves:
        none = torch.zeros(0, dtype=torch.float32, device="cpu")
        return Sums(none, none.clone(), ())
    total = _sums(s, backend).to(s.dtype)
    return Sums(total[:, 0], total[:, 1], s.paths())


def stats(params: Params, *, mask: Any = None, anchor: Any = None, backend: str | None = None) -> Stats:
    """Σ|x|, Σx², max|x|, zeros and non-finite numbers of each selected leaf, in one launch a device.

    Arguments and errors are those of `penalty`. Not differentiable: the results are detached. An empty leaf has
    max 0; a leaf with a NaN has max NaN.

    >>> import torch
    >>> from fused_penalty.torch import stats
    >>> s = stats({"a": torch.tensor([3.0, -4.0, 0.0]), "b": torch.tensor(float("inf"))})
    >>> s.max.tolist(), s.zeros.tolist(), s.nonfinite.tolist(), s.size
    ([4.0, inf], [1, 0], [0, 1], (3, 1))
    """
    s = select(params, 1.0, 1.0, mask, anchor)
    backend = requested(backend)
    none = torch.zeros(0, dtype=torch.float32, device="cpu")
    if not s.leaves:
        return Stats(none, none, none, none.to(torch.int64), none.to(torch.int64), (), ())
    with torch.no_grad():
        total = gather(s, [core.stats(*take(s, index), backend) for index in s.by_device], stats=True)
    absolute, square, largest = total[:, :3].to(s.dtype).unbind(1)
    zeros, nonfinite = total[:, 3:].to(torch.int64).unbind(1)
    return Stats(absolute, square, largest, zeros, nonfinite, tuple(x.numel() for x in s.params), s.paths())


def _sums(s: Selection, backend: str | None) -> Tensor:
    """S (n, 2) float64 on the first leaf's device, from one launch a device."""
    terms = s.groups.leaf_terms
    if len(s.by_device) == 1:
        return gather(s, [core.sums(s.leaves, s.anchors, terms, backend)])
    parts = []
    for index in s.by_device:
        xs, anchors = take(s, index)
        parts.append(core.sums(xs, anchors, tuple(terms[i] for i in index), backend))
    return gather(s, parts)


def _gradients(s: Selection, backend: str | None) -> tuple[Tensor, dict[int, Tensor]]:
    """S, and the gradients by position in params."""
    strengths = torch.stack([per_leaf(s, 0), 2 * per_leaf(s, 1)], dim=1)
    terms = s.groups.leaf_terms
    chosen: dict[int, Tensor] = {}
    parts = []
    for index in s.by_device:
        xs, anchors = take(s, index)
        live = [k for k, i in enumerate(index) if not is_frozen(s.params[i])]
        factors = strengths if len(s.by_device) == 1 else torch.stack([strengths[i] for i in index]).to(xs[0].device)
        total, found = core.sums_and_gradients(xs, anchors, factors, [terms[i] for i in index], live, backend)
        parts.append(total)
        local = zip((index[k] for k in live), found, strict=True)
        chosen.update({s.index[i]: g if s.shards is None else s.shards.wrap(i, g) for i, g in local})
    return gather(s, parts), chosen
