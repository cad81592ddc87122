"""What the leaves hold: `sums` and `stats`, a number per leaf."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._core.operations import Op
from . import calculus as core
from . import ops
from .devices import on_each_device
from .params import Selection, select, zeros
from .strengths import requested
from .types import Anchor, Frozen, Mask, Params

__all__ = ["Stats", "Sums", "stats", "sums"]


class Sums(NamedTuple):
    """What `sums` returns, a value for each selected leaf, on the first leaf's device.

    Attributes:
      abs: Σ|x|, shape (n,), float32, or float64 if any selected leaf is float64.
      square: Σx², as abs.
      paths: The names of the leaves.
    """

    abs: Tensor
    square: Tensor
    paths: tuple[str, ...]


class Stats(NamedTuple):
    """What `stats` returns, a value for each selected leaf, on the first leaf's device.

    Attributes:
      abs: Σ|x|, shape (n,), float32, or float64 if any selected leaf is float64.
      square: Σx², as abs.
      max: max|x|, as abs.
      zeros: How many elements are zero, shape (n,), int64.
      nonfinite: How many are infinite or NaN, as zeros.
      size: How many elements there are.
      paths: The names of the leaves.
    """

    abs: Tensor
    square: Tensor
    max: Tensor
    zeros: Tensor
    nonfinite: Tensor
    size: tuple[int, ...]
    paths: tuple[str, ...]


def sums(
    params: Params,
    *,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    frozen: Frozen = "count",
    backend: str | None = None,
) -> Sums:
    """Compute Σ|x_i| and Σx_i² of each selected leaf, in one launch per device. Differentiable, as `penalty` is.

    Args:
      params, mask, frozen, backend: As in `penalty`.
      anchor: Tensors that pair with params; the sums are then those of x - anchor.

    Returns:
      A `Sums` with tensors of shape (n,), n being the number of selected leaves.

    Raises:
      TypeError, ValueError, RuntimeError: As in `penalty`.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import sums
      >>> s = sums({"a": torch.tensor([3.0, -4.0]), "b": torch.tensor(2.0)})
      >>> s.abs.tolist(), s.square.tolist(), s.paths
      ([7.0, 2.0], [25.0, 4.0], ('a', 'b'))
    """
    s = select(params, 1.0, 1.0, mask, anchor, frozen)
    backend = requested(backend)
    if not s.leaves:
        return Sums(zeros(0), zeros(0), ())
    total = sums_of(s, backend).to(s.dtype)
    return Sums(total[:, 0], total[:, 1], s.paths())


def stats(
    params: Params,
    *,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    frozen: Frozen = "count",
    backend: str | None = None,
) -> Stats:
    """Compute Σ|x|, Σx², max|x|, zeros and non-finite numbers of each selected leaf, in one launch per device.

    Not differentiable: the results are detached. An empty leaf has max 0; a leaf with a NaN has max NaN.

    Args:
      params, mask, frozen, backend: As in `penalty`.
      anchor: Tensors that pair with params; the numbers are then those of x - anchor.

    Returns:
      A `Stats` with tensors of shape (n,), n being the number of selected leaves.

    Raises:
      TypeError, ValueError, RuntimeError: As in `penalty`.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import stats
      >>> s = stats({"a": torch.tensor([3.0, -4.0, 0.0]), "b": torch.tensor(float("inf"))})
      >>> s.max.tolist(), s.zeros.tolist(), s.nonfinite.tolist(), s.size
      ([4.0, inf], [1, 0], [0, 1], (3, 1))
    """
    return described(select(params, 1.0, 1.0, mask, anchor, frozen), requested(backend))


def described(s: Selection, backend: str | None) -> Stats:
    """`stats` of a selection."""
    none = zeros(0)
    if not s.leaves:
        return Stats(none, none, none, none.to(torch.int64), none.to(torch.int64), (), ())
    total = stats_of(s, backend)
    absolute, square, largest = total[:, :3].to(s.dtype).unbind(1)
    zero, nonfinite = total[:, 3:].to(torch.int64).unbind(1)
    return Stats(absolute, square, largest, zero, nonfinite, tuple(x.numel() for x in s.params), s.paths())


def stats_of(s: Selection, backend: str | None) -> Tensor:
    """The columns of `Op.STATS` (n, 5) float64 on the first leaf's device, detached, from one launch per device."""
    with torch.no_grad():
        return on_each_device(Op.STATS, s, lambda part: ops.stats(part.xs, part.anchors, backend or ""))


def sums_of(s: Selection, backend: str | None) -> Tensor:
    """S (n, 2) float64 on the first leaf's device, from one launch per device."""
    return on_each_device(Op.SUMS, s, lambda part: core.sums(part.xs, part.anchors, part.terms, backend))
