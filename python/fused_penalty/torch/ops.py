"""The custom ops that only read: what torch.compile, export and traces see. (Those that write: updates.py.)

Each checks its operands, since it can be called by anybody; `fused_penalty::sums` gets its derivatives in calculus.py,
the others have none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._core import backends
from . import batching
from .operands import check_leaves, check_live, check_strengths, check_terms


@torch.library.custom_op("fused_penalty::sums", mutates_args=())
def sums_op(xs: list[Tensor], anchors: list[Tensor], terms: list[int], backend: str) -> Tensor:
    """`terms` matter to its derivative alone."""
    _check_sums(xs, anchors, terms)
    return launcher(backend, xs[0]).launch_sums(xs, anchors)


@sums_op.register_fake
def _(xs: list[Tensor], anchors: list[Tensor], terms: list[int], backend: str) -> Tensor:
    _check_sums(xs, anchors, terms)
    return xs[0].new_empty((len(xs), 2), dtype=torch.float64)


def _check_sums(xs: list[Tensor], anchors: list[Tensor], terms: list[int]) -> None:
    check_leaves(xs, anchors)
    check_terms(xs, terms)


@torch.library.custom_op("fused_penalty::gradients", mutates_args=())
def gradients_op(
    xs: list[Tensor],
    anchors: list[Tensor],
    strengths: Tensor,
    terms: list[int],
    live: list[int],
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    _check_gradients(xs, anchors, strengths, terms, live)
    return launcher(backend, xs[0]).launch_gradients(xs, anchors, strengths, terms, live)


@gradients_op.register_fake
def _(
    xs: list[Tensor],
    anchors: list[Tensor],
    strengths: Tensor,
    terms: list[int],
    live: list[int],
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    _check_gradients(xs, anchors, strengths, terms, live)
    return strengths.new_empty((len(xs), 2)), [torch.empty_like(xs[i]) for i in live]


@gradients_op.register_vmap
def _(
    info: Any,
    in_dims: Any,
    xs: list[Tensor],
    anchors: list[Tensor],
    strengths: Tensor,
    terms: list[int],
    live: list[int],
    backend: str,
) -> Any:
    n = batching.check_rows(info)
    total, found = gradients_op(
        batching.rows(xs, in_dims[0], n),
        batching.rows(anchors, in_dims[1], n),
        batching.strength_rows(strengths, in_dims[2], n),
        batching.repeated(terms, n),
        batching.positions(live, n),
        backend,
    )
    total, dim = batching.per_leaf_rows(total, n)
    found, dims = batching.stacked(found, n)
    return (total, found), (dim, dims)


def _check_gradients(
    xs: list[Tensor], anchors: list[Tensor], strengths: Tensor, terms: list[int], live: list[int]
) -> None:
    check_leaves(xs, anchors)
    check_strengths(xs, strengths, terms)
    check_live(live, len(xs))


@torch.library.custom_op("fused_penalty::stats", mutates_args=())
def stats_op(xs: list[Tensor], anchors: list[Tensor], backend: str) -> Tensor:
    check_leaves(xs, anchors)
    return launcher(backend, xs[0]).launch_stats(xs, anchors)


@stats_op.register_fake
def _(xs: list[Tensor], anchors: list[Tensor], backend: str) -> Tensor:
    check_leaves(xs, anchors)
    return xs[0].new_empty((len(xs), 5), dtype=torch.float64)


@stats_op.register_vmap
def _(info: Any, in_dims: Any, xs: list[Tensor], anchors: list[Tensor], backend: str) -> Any:
    n = batching.check_rows(info)
    total = stats_op(batching.rows(xs, in_dims[0], n), batching.rows(anchors, in_dims[1], n), backend)
    return batching.per_leaf_rows(total, n)


def launcher(backend: str, x: Tensor) -> Any:
    return backends.choose("torch", backend or None, x.device.type).launcher()
