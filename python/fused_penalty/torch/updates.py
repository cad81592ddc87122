"""Launches that write in place, one per device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._core.operations import Op, Role
from . import ops
from .devices import Part, on_each_device, parts
from .followed import check_not_followed
from .modes import is_plain
from .params import Selection


def update(op: Op, s: Selection, outs: Sequence[Tensor | None], coefficients: Tensor, backend: str | None) -> Tensor:
    """Write `outs` (None for a leaf that is only read), which are placed like the leaves; the totals (n, 2) float64 of
    what was read, on the first leaf's device.

    coefficients (n, 2) float64: a and b of the operation (`_core.operations.Op`), for each leaf.
    """
    if not is_plain():
        check_not_followed(s, outs)
    local = s.local(outs)
    if s.shards is not None:
        s.shards.agree()

    def launch(part: Part) -> Tensor:
        return _launch(op, part, part.pick(local), part.rows(coefficients), backend or "")

    return on_each_device(op, s, launch)


def scale(s: Selection, factor: Tensor, backend: str | None) -> None:
    """Multiply the leaves by `factor`, a 0-d float64 tensor, which is not read on the host.

    The ranks' lists have been compared already, by the norm that the factor comes from, and what was read is not added
    up over the ranks.
    """
    if not is_plain():
        check_not_followed(s, list(s.leaves))
    if torch.jit.is_tracing():  # which drops an op whose result nobody uses, even where it writes
        for x in s.leaves:
            x.mul_(factor.to(x.device))
        return
    for part in parts(s):
        c = factor.to(part.xs[0].device)
        pair = torch.stack([torch.zeros_like(c), c])
        ops.scale_(part.xs, pair.expand(len(part.xs), 2), backend or "")


def _launch(op: Op, part: Part, outs: list[Tensor | None], coefficients: Tensor, backend: str) -> Tensor:
    terms = list(part.terms)
    if is_plain():  # `check_writable` has told autograd of the write by then
        return ops.launch(op, part.xs, part.anchors, outs, coefficients, terms, backend)
    live = [i for i, o in enumerate(outs) if o is not None]
    written = [o for o in outs if o is not None]
    if op.writes is Role.GRAD:
        total: Tensor = ops.add_gradients_(part.xs, part.anchors, written, live, coefficients, terms, backend)
    else:
        read = [x for x, o in zip(part.xs, outs, strict=True) if o is None]
        total = ops.update_(written, read, part.anchors, live, coefficients, terms, int(op), backend)
    return total
