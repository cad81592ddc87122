"""What the custom ops require of their operands.

The verbs always comply; but anybody can call `torch.ops.fused_penalty.*`, or load a graph that does, and native
code would read past the end of an operand that is too short. Real and fake implementations both check, so that a
graph which cannot run is refused where it is traced. Leaves have no names here: errors name the operand and its
position.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from .._core.errors import bad, bad_write
from .._core.plan import BOTH
from .survey import SUPPORTED, WRITABLE

_REMEDY = "Call the verbs of fused_penalty.torch, which prepare what this op takes"


def check_leaves(xs: Sequence[Tensor], anchors: Sequence[Tensor]) -> None:
    """Leaves must be readable by a kernel and on one device; there must be no anchors, or one like each leaf."""
    if not xs:
        raise _wrong("xs", "no leaves")
    for i, x in enumerate(xs):
        if x.dtype not in SUPPORTED or x.layout is not torch.strided or x.is_meta or x.device != xs[0].device:
            raise _wrong(f"xs[{i}]", f"{_text(x)} of {x.layout} beside {_text(xs[0])}")
    if anchors:
        check_alike("anchors", anchors, xs)


def check_alike(argument: str, tensors: Sequence[Tensor], xs: Sequence[Tensor]) -> None:
    """There must be a tensor for each leaf, with its dtype, shape and device."""
    if len(tensors) != len(xs):
        raise _wrong(argument, f"{len(tensors)} tensors for {len(xs)} leaves")
    for i, (t, x) in enumerate(zip(tensors, xs, strict=True)):
        if (t.dtype, t.layout, t.device) != (x.dtype, x.layout, x.device) or t.shape != x.shape:
            raise _wrong(f"{argument}[{i}]", f"{_text(t)} of {t.layout} beside a leaf that is {_text(x)}")


def check_coefficients(xs: Sequence[Tensor], coefficients: Tensor, terms: Sequence[int]) -> None:
    """There must be two float64 numbers for each leaf, and its terms."""
    if coefficients.shape != (len(xs), 2) or coefficients.dtype != torch.float64 or coefficients.device != xs[0].device:
        raise _wrong("coefficients", f"{_text(coefficients)} instead of torch.float64[{len(xs)}, 2] on {xs[0].device}")
    check_terms(xs, terms)


def check_terms(xs: Sequence[Tensor], terms: Sequence[int]) -> None:
    if len(terms) != len(xs) or not all(0 <= t <= BOTH for t in terms):
        raise _wrong("terms", f"{_some(terms)} instead of {len(xs)} numbers from 0 to {BOTH}")


def check_live(live: Sequence[int], leaves: int, written: int | None = None) -> None:
    """`live` must be positions of leaves, in order, as many as there are tensors to write."""
    if any(not 0 <= i < leaves for i in live) or any(a >= b for a, b in itertools.pairwise(live)):
        raise _wrong("live", f"{_some(live)} are not rising positions in {leaves} leaves")
    if written is not None and len(live) != written:
        raise _wrong("live", f"{len(live)} positions for {written} tensors to write")


def check_dtypes(xs: Sequence[Tensor], live: Sequence[int]) -> None:
    """Leaves for which something is written must have a dtype that can be written."""
    for i in live:
        if xs[i].dtype not in WRITABLE:
            raise bad_write(None, xs[i].dtype, f"xs[{i}]")


def check_written(argument: str, written: Sequence[Tensor]) -> None:
    """One launch must not write any memory twice."""
    filled = [t for t in written if t.numel()]
    if len({t.data_ptr() for t in filled}) < len(filled):
        raise bad(
            ValueError, argument, "two of these tensors are the same memory, which a launch would write twice",
            "Give each tensor once; under vmap, map over memory of its own for each row (clone() an expanded tensor)",
        )  # fmt: skip


def _text(x: Tensor) -> str:
    return f"{x.dtype}{list(x.shape)} on {x.device}"


def _some(values: Sequence[int]) -> str:
    return str(list(values)) if len(values) <= 8 else f"{len(values)} numbers"


def _wrong(argument: str, what: str) -> Exception:
    return bad(ValueError, argument, what, _REMEDY)
