"""What an in-place call refuses, before it writes anything."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from .._core.errors import bad
from .overlap import Undecided, footprint, repeats, shared
from .params import SUPPORTED, Selection, Tensors, is_plain

_is_leaf, _version = operator.attrgetter("is_leaf"), operator.attrgetter("_version")


def check_writable(
    s: Selection, outs: Sequence[Tensor | None], *, gradients: bool = False, announce: bool = True
) -> None:
    """Raise for the first of `outs` that cannot be written in place, by the name of its leaf; then tell autograd of the
    coming write (`announce`).

    `outs` are the leaves themselves, or their gradients. Refused: memory that is not dense or not like the leaf's,
    results of recorded operations, inference tensors outside inference mode, tensors that hold an element twice, and
    tensors that share elements with others of the call. While torch.compile traces there is no memory to check;
    only dtypes and layouts are.
    """
    placed, outs = outs, s.local(outs)
    s.check_dtypes(o is not None for o in outs)
    written = [o for o in placed if o is not None]
    plain = is_plain()
    if plain and _is_ordinary(s, written, placed if placed is s.leaves else outs, gradients):
        if announce:
            _bump_versions(s, written, outs)
        return
    what = "its gradient, " if gradients else ""
    for name, x, out, whole in zip(s.paths(), s.leaves, outs, placed, strict=True):
        if out is not None and whole is not None:
            _check_one(s.argument, name, x, out, whole.is_leaf, what, plain)
    if plain:
        _check_shared(s, outs, what)
        if announce:
            _bump_versions(s, written, outs)


def _bump_versions(s: Selection, written: list[Tensor], outs: Sequence[Tensor | None]) -> None:
    """Bump the version counters, so that a backward pass which needs an old value raises."""
    if s.shards is not None:  # a DTensor's version is not that of its local tensor
        written = written + [o for o in outs if o is not None]
    if torch.is_inference_mode_enabled():  # inference tensors have no version
        written = [o for o in written if not o.is_inference()]
    torch.autograd.graph.increment_version(written)


def _is_ordinary(s: Selection, written: list[Tensor], outs: Sequence[Tensor | None], gradients: bool) -> bool:
    """Fast path: the whole check in native code (about 10x faster); False if a tensor is out of the ordinary."""
    if s.read is None or not all(map(_is_leaf, written)):
        return False
    try:
        list(map(_version, written))  # inference tensors have none and raise
        out = s.read if outs is s.leaves else Tensors(list(outs), s.read)
        if out.irregular or out.layout != s.read.layout or len(out.devices) > 1:
            return False
        if gradients:
            reads = Tensors(s.leaves + s.anchors) if s.anchors else s.read
        else:
            rest = [] if outs is s.leaves else [x for x, o in zip(s.leaves, outs, strict=True) if o is None]
            reads = Tensors(rest + s.anchors)
        return (not out.devices or out.devices == s.read.devices) and not out.shared(reads)
    except (TypeError, RuntimeError, BufferError):
        return False


def _check_one(argument: str, name: str, x: Tensor, out: Tensor, is_leaf: bool, what: str, plain: bool) -> None:
    if out.layout is not torch.strided or out.dtype not in SUPPORTED or out.is_meta:
        raise bad(
            TypeError, argument, f"{what}a tensor of {out.layout} and {out.dtype} has no dense float memory to write",
            "Leave the leaf out with mask= (for sparse gradients: Embedding(sparse=False))", path=name,
        )  # fmt: skip
    if (out.dtype, out.shape, out.device) != (x.dtype, x.shape, x.device):
        raise bad(
            TypeError, argument,
            f"{what}{out.dtype}{list(out.shape)} on {out.device} beside a leaf of {x.dtype}{list(x.shape)} "
            f"on {x.device}",
            "Both must be alike; convert one, or leave the leaf out with mask=", path=name,
        )  # fmt: skip
    if not is_leaf:
        raise bad(
            ValueError, argument, f"{what}the result of an operation that autograd recorded",
            "A write in place would not be recorded: give leaf tensors (parameters), or detach() it", path=name,
        )  # fmt: skip
    if not plain:
        return
    if out.is_inference() and not torch.is_inference_mode_enabled():
        raise bad(
            ValueError, argument, f"{what}an inference tensor, which cannot be written outside inference mode",
            "Call inside torch.inference_mode(), or clone() it first", path=name,
        )  # fmt: skip
    _check_once(argument, name, out, what)


def _check_once(argument: str, name: str, out: Tensor, what: str) -> None:
    try:
        if not repeats(out.shape, out.stride()):
            return
    except Undecided:
        raise bad(
            ValueError, argument,
            f"{what}a tensor of shape {list(out.shape)} and strides {list(out.stride())}: it cannot be proved "
            "in reasonable time that it holds every element once",
            "Give contiguous() memory", path=name,
        ) from None  # fmt: skip
    raise bad(
        ValueError, argument, f"{what}a tensor that holds an element twice (strides {list(out.stride())})",
        "An expanded tensor cannot be written in place: give its base, or contiguous() memory", path=name,
    )  # fmt: skip


def _check_shared(s: Selection, outs: Sequence[Tensor | None], what: str) -> None:
    paths = s.paths()
    tensors = [(name, o) for name, o in zip(paths, outs, strict=True) if o is not None]
    count = len(tensors)  # those are written, the others read
    tensors += [(name, x) for name, x, o in zip(paths, s.leaves, outs, strict=True) if o is not x]
    tensors += [(f"anchor at {name!r}", a) for name, a in zip(paths, s.anchors, strict=False)]
    for device in {t.device for _, t in tensors}:
        names = [name for name, t in tensors if t.device == device]
        writes = [i < count for i, (_, t) in enumerate(tensors) if t.device == device]
        prints = [
            footprint(t.data_ptr(), t.shape, t.stride(), t.element_size()) for _, t in tensors if t.device == device
        ]
        try:
            found = shared(prints, writes)
        except Undecided as pair:
            raise bad(
                ValueError, s.argument,
                f"{what}interleaves in memory with {names[pair.second]!r}, and it cannot be proved in reasonable time "
                f"that they share no element ({len(names)} tensors)",
                "clone() one of the two, give contiguous() memory, or make several calls", path=names[pair.first],
            ) from None  # fmt: skip
        if found is not None:
            raise bad(
                ValueError, s.argument, f"{what}shares elements with {names[found[1]]!r}",
                "A launch in place must write each element once: give one of the two, or clone() one",
                path=names[found[0]],
            )  # fmt: skip
