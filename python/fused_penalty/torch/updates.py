"""Launches that write in place: two custom ops that tell torch.compile what they mutate, one launch per device.

In plain eager mode the launcher is called directly; `check_writable` has told autograd of the write by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._core.errors import bad
from .._core.operations import Op, op_of
from . import batching
from .followed import check_not_followed
from .operands import check_alike, check_leaves, check_live, check_strengths, check_written
from .ops import launcher
from .params import Selection, is_plain
from .strengths import gather, take


@torch.library.custom_op("fused_penalty::add_gradients_", mutates_args={"grads"})
def add_gradients_op(
    xs: list[Tensor],
    anchors: list[Tensor],
    grads: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
    backend: str,
) -> Tensor:
    _check_add(xs, anchors, grads, live, strengths, terms)
    check_written("grads", grads)
    outs: list[Tensor | None] = [None] * len(xs)
    for i, g in zip(live, grads, strict=True):
        outs[i] = g
    return launcher(backend, xs[0]).launch_update(Op.ADD_GRADIENT, xs, anchors, outs, strengths, terms)


@add_gradients_op.register_fake
def _(
    xs: list[Tensor],
    anchors: list[Tensor],
    grads: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
    backend: str,
) -> Tensor:
    _check_add(xs, anchors, grads, live, strengths, terms)
    return strengths.new_empty((len(xs), 2))


@add_gradients_op.register_vmap
def _(
    info: Any,
    in_dims: Any,
    xs: list[Tensor],
    anchors: list[Tensor],
    grads: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
    backend: str,
) -> Any:
    n = batching.check_rows(info)
    batching.check_mapped("grads", in_dims[2])
    total = add_gradients_op(
        batching.rows(xs, in_dims[0], n),
        batching.rows(anchors, in_dims[1], n),
        batching.rows(grads, in_dims[2], n),
        batching.positions(live, n),
        batching.strength_rows(strengths, in_dims[4], n),
        batching.repeated(terms, n),
        backend,
    )
    return batching.per_leaf_rows(total, n)


def _check_add(
    xs: list[Tensor],
    anchors: list[Tensor],
    grads: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
) -> None:
    check_leaves(xs, anchors)
    check_strengths(xs, strengths, terms)
    check_live(live, len(xs), len(grads))
    check_alike("grads", grads, [xs[i] for i in live])


@torch.library.custom_op("fused_penalty::update_", mutates_args={"written"})
def update_op(
    written: list[Tensor],
    read: list[Tensor],
    anchors: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
    op: int,
    backend: str,
) -> Tensor:
    """The leaves in `live` are `written`, the others are `read`."""
    xs = _check_update(written, read, anchors, live, strengths, terms, op)
    check_written("written", written)
    inside = set(live)
    outs: list[Tensor | None] = [x if i in inside else None for i, x in enumerate(xs)]
    return launcher(backend, xs[0]).launch_update(op_of(op), xs, anchors, outs, strengths, terms)


@update_op.register_fake
def _(
    written: list[Tensor],
    read: list[Tensor],
    anchors: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
    op: int,
    backend: str,
) -> Tensor:
    _check_update(written, read, anchors, live, strengths, terms, op)
    return strengths.new_empty((len(written) + len(read), 2))


@update_op.register_vmap
def _(
    info: Any,
    in_dims: Any,
    written: list[Tensor],
    read: list[Tensor],
    anchors: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
    op: int,
    backend: str,
) -> Any:
    n = batching.check_rows(info)
    batching.check_mapped("written", in_dims[0])
    total = update_op(
        batching.rows(written, in_dims[0], n),
        batching.rows(read, in_dims[1], n),
        batching.rows(anchors, in_dims[2], n),
        batching.positions(live, n),
        batching.strength_rows(strengths, in_dims[4], n),
        batching.repeated(terms, n),
        op,
        backend,
    )
    return batching.per_leaf_rows(total, n)


def _check_update(
    written: list[Tensor],
    read: list[Tensor],
    anchors: list[Tensor],
    live: list[int],
    strengths: Tensor,
    terms: list[int],
    op: int,
) -> list[Tensor]:
    """The leaves in order."""
    if op not in (Op.PROX, Op.REGULARIZE):
        raise bad(
            ValueError, "op", f"{op} is no operation that writes the leaves themselves",
            f"Use {int(Op.PROX)} (prox_) or {int(Op.REGULARIZE)} (regularize_)",
        )  # fmt: skip
    check_live(live, len(written) + len(read), len(written))
    changed, kept = iter(written), iter(read)
    inside = set(live)
    xs = [next(changed) if i in inside else next(kept) for i in range(len(written) + len(read))]
    check_leaves(xs, anchors)
    check_strengths(xs, strengths, terms)
    return xs


def update(op: Op, s: Selection, outs: Sequence[Tensor | None], strengths: Tensor, backend: str | None) -> Tensor:
    """Writes `outs` (None: that leaf is only read), which are placed as the leaves; S (n, 2) float64 of what was read,
    on the first leaf's device.

    strengths (n, 2) float64: a and b of the operation (`_core.operations.Op`), for each leaf.
    """
    if not is_plain():
        check_not_followed(s, outs)
    local, terms = s.local(outs), s.groups.leaf_terms
    if s.shards is not None:
        s.shards.agree()
    if len(s.by_device) == 1:
        return gather(s, [_launch(op, s.leaves, s.anchors, local, strengths, list(terms), backend or "")])
    parts = []
    for index in s.by_device:
        xs, anchors = take(s, index)
        each = torch.stack([strengths[i] for i in index]).to(xs[0].device)
        mine, some = [local[i] for i in index], [terms[i] for i in index]
        parts.append(_launch(op, xs, anchors, mine, each, some, backend or ""))
    return gather(s, parts)


def _launch(
    op: Op,
    xs: list[Tensor],
    anchors: list[Tensor],
    outs: list[Tensor | None],
    strengths: Tensor,
    terms: list[int],
    backend: str,
) -> Tensor:
    if is_plain():
        return launcher(backend, xs[0]).launch_update(op, xs, anchors, outs, strengths, terms)
    live = [i for i, o in enumerate(outs) if o is not None]
    written = [o for o in outs if o is not None]
    if op is Op.ADD_GRADIENT:
        return add_gradients_op(xs, anchors, written, live, strengths, terms, backend)
    read = [x for x, o in zip(xs, outs, strict=True) if o is None]
    return update_op(written, read, anchors, live, strengths, terms, int(op), backend)
