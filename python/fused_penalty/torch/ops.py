"""The custom ops: what torch.compile, export and traces see of a launch. The verbs call them through `operator`, which
in plain eager mode goes straight to the launch.

`fused_penalty::sums` gets its derivatives in calculus.py; the others have none. Those that write declare what, since
torch.compile has to know; an operand that is written may not be among the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._core import backends
from .._core.errors import bad
from .._core.operations import Op, Role, op_of
from .._core.plan import BOTH
from .operands import (
    check_alike,
    check_coefficients,
    check_dtypes,
    check_leaves,
    check_live,
    check_terms,
    check_written,
)
from .operator import operator

F64 = torch.float64


def launch(
    op: Op,
    xs: list[Tensor],
    anchors: list[Tensor],
    outs: list[Any],
    coefficients: Tensor | None,
    terms: Sequence[int],
    backend: str,
) -> Tensor:
    """On the backend of the leaves' device: see `_core.backends.TorchBackend`."""
    row = backends.choose("torch", backend or None, xs[0].device.type)
    found: Tensor = row.launcher().launch(op, xs, anchors, outs, coefficients, terms)
    return found


# Those that only read.


def _check_sums(xs: list[Tensor], anchors: list[Tensor], terms: list[int], backend: str) -> None:
    check_leaves(xs, anchors)
    check_terms(xs, terms)


@operator("sums", check=_check_sums, result=lambda xs, *_: xs[0].new_empty((len(xs), 2), dtype=F64))
def sums(xs: list[Tensor], anchors: list[Tensor], terms: list[int], backend: str) -> Tensor:
    """`terms` matter only to its derivative."""
    return launch(Op.SUMS, xs, anchors, [], None, (), backend)


def _check_stats(xs: list[Tensor], anchors: list[Tensor], backend: str) -> None:
    check_leaves(xs, anchors)


@operator("stats", check=_check_stats, result=lambda xs, *_: xs[0].new_empty((len(xs), 5), dtype=F64))
def stats(xs: list[Tensor], anchors: list[Tensor], backend: str) -> Tensor:
    return launch(Op.STATS, xs, anchors, [], None, (), backend)


# A fresh gradient for each leaf in `live`.


def _check_gradients(
    xs: list[Tensor], anchors: list[Tensor], coefficients: Tensor, terms: list[int], live: list[int], backend: str
) -> None:
    check_leaves(xs, anchors)
    check_coefficients(xs, coefficients, terms)
    check_live(live, len(xs))
    check_dtypes(xs, live)


@operator(
    "gradients",
    check=_check_gradients,
    result=lambda xs, anchors, coefficients, terms, live, backend: (
        coefficients.new_empty((len(xs), 2)),
        [torch.empty_like(xs[i]) for i in live],
    ),
)
def gradients(
    xs: list[Tensor], anchors: list[Tensor], coefficients: Tensor, terms: list[int], live: list[int], backend: str
) -> tuple[Tensor, list[Tensor]]:
    found = [torch.empty_like(xs[i]) for i in live]
    outs = _spread(found, live, len(xs))
    return launch(Op.GRADIENT, xs, anchors, outs, coefficients, terms, backend), found


def _spread(values: Iterable[Any], live: Sequence[int], n: int) -> list[Any]:
    """A list of length n with the values at the positions `live`, and None elsewhere."""
    found: list[Any] = [None] * n
    for i, value in zip(live, values, strict=True):
        found[i] = value
    return found


# In place: the gradients that exist already.


def _check_add(
    xs: list[Tensor],
    anchors: list[Tensor],
    grads: list[Tensor],
    live: list[int],
    coefficients: Tensor,
    terms: list[int],
    backend: str,
) -> None:
    check_leaves(xs, anchors)
    check_coefficients(xs, coefficients, terms)
    check_live(live, len(xs), len(grads))
    check_alike("grads", grads, [xs[i] for i in live])
    check_dtypes(xs, live)


@operator(
    "add_gradients_",
    check=_check_add,
    result=lambda xs, anchors, grads, live, coefficients, *_: coefficients.new_empty((len(xs), 2)),
    mutates={"grads"},
    check_memory=lambda xs, anchors, grads, *_: check_written("grads", grads),
)
def add_gradients_(
    xs: list[Tensor],
    anchors: list[Tensor],
    grads: list[Tensor],
    live: list[int],
    coefficients: Tensor,
    terms: list[int],
    backend: str,
) -> Tensor:
    return launch(Op.ADD_GRADIENT, xs, anchors, _spread(grads, live, len(xs)), coefficients, terms, backend)


# In place: the leaves times a number.


def _check_scale(xs: list[Tensor], coefficients: Tensor, backend: str) -> None:
    check_leaves(xs, [])
    check_coefficients(xs, coefficients, [BOTH] * len(xs))
    check_dtypes(xs, range(len(xs)))


@operator(
    "scale_",
    check=_check_scale,
    result=lambda xs, coefficients, backend: coefficients.new_empty((len(xs), 2)),
    mutates={"xs"},
    check_memory=lambda xs, *_: check_written("xs", xs),
)
def scale_(xs: list[Tensor], coefficients: Tensor, backend: str) -> Tensor:
    """The gradient a·sign(x) + b·x written over x: with a = 0 it is b·x to the bit, NaN, inf and -0.0 included. A
    proximal step with a = 0 would make +0.0 of each zero."""
    return launch(Op.GRADIENT, xs, [], xs, coefficients, (BOTH,) * len(xs), backend)


# In place: the leaves themselves. Those in `live` are `written`, the others are `read`.


def _check_update(
    written: list[Tensor],
    read: list[Tensor],
    anchors: list[Tensor],
    live: list[int],
    coefficients: Tensor,
    terms: list[int],
    op: int,
    backend: str,
) -> None:
    able = [row for row in Op if row.writes is Role.X]
    if op not in able:
        raise bad(
            ValueError, "op", f"{op} is not an operation that writes the leaves themselves",
            f"Use {' or '.join(f'{int(row)} ({row.name.lower()})' for row in able)}",
        )  # fmt: skip
    check_live(live, len(written) + len(read), len(written))
    xs = _merged(written, read, live)
    check_leaves(xs, anchors)
    check_coefficients(xs, coefficients, terms)
    check_dtypes(xs, live)


@operator(
    "update_",
    check=_check_update,
    result=lambda written, read, anchors, live, coefficients, *_: coefficients.new_empty((len(written + read), 2)),
    mutates={"written"},
    check_memory=lambda written, *_: check_written("written", written),
)
def update_(
    written: list[Tensor],
    read: list[Tensor],
    anchors: list[Tensor],
    live: list[int],
    coefficients: Tensor,
    terms: list[int],
    op: int,
    backend: str,
) -> Tensor:
    xs = _merged(written, read, live)
    return launch(op_of(op), xs, anchors, _spread(written, live, len(xs)), coefficients, terms, backend)


def _merged(written: list[Tensor], read: list[Tensor], live: list[int]) -> list[Tensor]:
    """Both lists merged, in the order of the leaves."""
    changed, kept, inside = iter(written), iter(read), set(live)
    return [next(changed) if i in inside else next(kept) for i in range(len(written) + len(read))]
