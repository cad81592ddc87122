"""What an in-place call refuses, before it writes anything."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .._core.errors import bad
from .params import SUPPORTED, Selection, Tensors, is_plain

_is_leaf, _version = operator.attrgetter("is_leaf"), operator.attrgetter("_version")


def check_writable(s: Selection, outs: Sequence[Tensor | None], *, gradients: bool = False) -> None:
    """Raises for the first of `outs` that cannot be written in place, by the name of its leaf; then tells autograd of
    the write that follows.

    `outs` are the leaves themselves, or their gradients. Refused: memory that is not dense or not like the leaf's,
    results of recorded operations, inference tensors outside inference mode, tensors that hold an element twice, and
    tensors that share elements with others of the call. While torch.compile traces there is no memory to ask about;
    only dtypes and layouts are looked at.
    """
    placed, outs = outs, s.local(outs)
    written = [o for o in placed if o is not None]
    plain = is_plain()
    if plain and _is_fine(s, written, outs, gradients):
        _tell_autograd(s, written, outs)
        return
    what = "its gradient, " if gradients else ""
    for name, x, out, whole in zip(s.paths(), s.leaves, outs, placed, strict=True):
        if out is not None and whole is not None:
            _check_one(name, x, out, whole.is_leaf, what, plain)
    if plain:
        _check_shared(s, outs, what)
        _tell_autograd(s, written, outs)


def _tell_autograd(s: Selection, written: list[Tensor], outs: Sequence[Tensor | None]) -> None:
    """Bumps the version counters, so that a backward pass which needs an old value raises."""
    if s.shards is not None:  # a DTensor's version is not that of its local tensor
        written = written + [o for o in outs if o is not None]
    if torch.is_inference_mode_enabled():  # inference tensors have no version
        written = [o for o in written if not o.is_inference()]
    torch.autograd.graph.increment_version(written)


def _is_fine(s: Selection, written: list[Tensor], outs: Sequence[Tensor | None], gradients: bool) -> bool:
    """The whole check, in a tenth of the time, where there is nothing unusual."""
    if s.read is None or not all(map(_is_leaf, written)):
        return False
    try:
        list(map(_version, written))  # inference tensors have none and raise
        out = Tensors(list(outs), s.read)
        if out.irregular or out.layout != s.read.layout or len(out.devices) > 1:
            return False
        if gradients:
            reads = Tensors(s.leaves + s.anchors) if s.anchors else s.read
        else:
            reads = Tensors([x for x, o in zip(s.leaves, outs, strict=True) if o is None] + s.anchors)
        return (not out.devices or out.devices == s.read.devices) and not out.shared(reads)
    except (TypeError, RuntimeError, BufferError):
        return False


def _check_one(name: str, x: Tensor, out: Tensor, is_leaf: bool, what: str, plain: bool) -> None:
    if out.layout is not torch.strided or out.dtype not in SUPPORTED or out.is_meta:
        raise bad(
            TypeError, "params", f"{what}a tensor of {out.layout} and {out.dtype} has no dense float memory to write",
            "Leave the leaf out with mask= (for sparse gradients: Embedding(sparse=False))", path=name,
        )  # fmt: skip
    if (out.dtype, out.shape, out.device) != (x.dtype, x.shape, x.device):
        raise bad(
            TypeError, "params",
            f"{what}{out.dtype}{list(out.shape)} on {out.device} beside a leaf of {x.dtype}{list(x.shape)} "
            f"on {x.device}",
            "Both must be alike; convert one, or leave the leaf out with mask=", path=name,
        )  # fmt: skip
    if not is_leaf:
        raise bad(
            ValueError, "params", f"{what}the result of an operation that autograd recorded",
            "A write in place would not be recorded: give leaf tensors (parameters), or detach() it", path=name,
        )  # fmt: skip
    if not plain:
        return
    if out.is_inference() and not torch.is_inference_mode_enabled():
        raise bad(
            ValueError, "params", f"{what}an inference tensor, which cannot be written outside inference mode",
            "Call inside torch.inference_mode(), or clone() it first", path=name,
        )  # fmt: skip
    if _repeats(out):
        raise bad(
            ValueError, "params", f"{what}a tensor that holds an element twice (strides {list(out.stride())})",
            "An expanded tensor cannot be written in place: give its base, or contiguous() memory", path=name,
        )  # fmt: skip


def _repeats(t: Tensor) -> bool:
    """True where two indices are one element."""
    extent = 1
    dims = sorted((step, n) for step, n in zip(t.stride(), t.shape, strict=True) if n > 1)
    for step, n in dims:
        if step < extent:
            break  # perhaps
        extent += step * (n - 1)
    else:
        return False
    offsets = np.zeros((), np.int64)
    for step, n in dims:
        offsets = np.add.outer(offsets, np.arange(n) * step)
    return len(np.unique(offsets)) < offsets.size


def _check_shared(s: Selection, outs: Sequence[Tensor | None], what: str) -> None:
    names = s.paths()
    reads = [x for x, o in zip(s.leaves, outs, strict=True) if o is not x] + s.anchors
    readers = [n for n, x, o in zip(names, s.leaves, outs, strict=True) if o is not x]
    readers += [f"anchor at {n!r}" for n in names] if s.anchors else []
    mine = [(name, o, True) for name, o in zip(names, outs, strict=True) if o is not None]
    for a, b in _overlapping([*mine, *((n, t, False) for n, t in zip(readers, reads, strict=True))]):
        raise bad(
            ValueError, "params", f"{what}shares elements with {b!r}",
            "A launch in place must write each element once: give one of the two, or clone() one", path=a,
        )  # fmt: skip


def _overlapping(tensors: list[tuple[str, Tensor, bool]]) -> Iterator[tuple[str, str]]:
    """Names of pairs that share elements and of which at least one is written."""
    spans = []
    for name, t, written in tensors:
        if t.numel():
            last = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
            spans.append((t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size(), name, t, written))
    spans.sort(key=lambda span: span[0])
    near: list[tuple[int, int, str, Tensor, bool]] = []
    for span in spans:
        near = [other for other in near if other[1] > span[0]]
        for other in near:
            if (span[4] or other[4]) and np.shares_memory(_shadow(span[3]), _shadow(other[3])):
                yield (other[2], span[2]) if other[4] else (span[2], other[2])
        near.append(span)


def _shadow(t: Tensor) -> np.ndarray:
    """An array with the tensor's address and strides, of any device; nobody reads its elements."""
    width = t.element_size()

    class Shadow:
        __array_interface__ = {  # noqa: RUF012  read once, by numpy
            "version": 3,
            "data": (t.data_ptr(), True),
            "shape": tuple(t.shape),
            "strides": tuple(step * width for step in t.stride()),
            "typestr": f"|V{width}",
        }

    return np.asarray(Shadow())
