"""What the native torch launchers share: tensors in, addresses to the kernel, tensors out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ... import _cpu
from ..._core.errors import bad
from ..._core.operations import Op, Role
from ..._core.plan import BOTH
from ..survey import Surveyed


@dataclass(frozen=True, slots=True)
class Held:
    """A list of tensors and what the native reader found in it. Whoever holds the addresses also holds the tensors that
    they point into, so they stay valid."""

    tensors: Sequence[Tensor | None]
    read: _cpu.Tensors

    @staticmethod
    def of(tensors: Sequence[Tensor | None], like: Held | None = None) -> Held:
        """Read the tensors; None for an absent one, which needs `like`: it then has the size that `like` has there."""
        if isinstance(tensors, Surveyed):
            return Held(tensors, tensors.read)
        return Held(tensors, _cpu.Tensors(tensors) if like is None else _cpu.Tensors(tensors, like=like.read))


@dataclass(frozen=True, slots=True)
class Buffers:
    """The arrays of one launch: leaves, and where the operation has them anchors and outputs. Dense memory, in which
    the elements of a leaf, its anchor and its output are in one order and mean what their bits say.

    Whoever launches keeps it until the kernel has read it, or until the launch is enqueued on the current stream, whose
    allocator hands freed memory to later work only.
    """

    device: torch.device
    x: Held
    anchor: Held | None = None
    out: Held | None = None

    @property
    def layout(self) -> bytes:
        """Sizes and dtypes, the key of the plan."""
        return self.x.read.layout

    @property
    def arrays(self) -> list[_cpu.Tensors]:
        """Those of x, anchor and out that are present."""
        return [held.read for held in (self.x, self.anchor, self.out) if held is not None]


# (op, arrays, coefficients (n, 2) float64 or None, terms of the leaves) -> totals (n, len(op.columns)) float64
Enqueue = Callable[[Op, Buffers, Tensor | None, tuple[int, ...] | int], Tensor]


@dataclass(frozen=True)
class Launcher:
    """A `TorchBackend`, from the launch of one device type on addresses; `step` as in the Protocol, if it has one."""

    enqueue: Enqueue
    step: Callable[..., Tensor] | None = None

    def launch(
        self,
        op: Op,
        xs: list[Tensor],
        anchors: list[Tensor],
        outs: list[Tensor | None],
        coefficients: Tensor | None,
        terms: Sequence[int],
    ) -> Tensor:
        """Launch; an output whose elements are ordered differently from its leaf's goes through a copy."""
        buffers = dense(xs, anchors, signed=op.writes in (Role.GRAD, Role.OUT))
        if op.writes is None:
            return self.enqueue(op, buffers, None, BOTH)
        buffers, copies = _with_outputs(op, buffers, xs, outs)
        assert coefficients is not None
        total = self.enqueue(op, buffers, _rows(coefficients, len(xs)), tuple(terms))
        for old, target in copies:
            old.copy_(target)
        return total


def _with_outputs(
    op: Op, buffers: Buffers, xs: list[Tensor], outs: Sequence[Tensor | None]
) -> tuple[Buffers, list[tuple[Tensor, Tensor]]]:
    """The buffers with their outputs, and (output, what to copy to it after the launch)."""
    if outs is xs:  # written over, or over what was copied of them
        pairs = [] if buffers.x.tensors is xs else zip(xs, buffers.x.tensors, strict=True)
        return replace(buffers, out=buffers.x), [(x, y) for x, y in pairs if y is not None and x is not y]
    leaves, out = buffers.x.tensors, Held.of(outs, like=buffers.x)
    if op.writes is Role.X:
        odd = {i for i, (x, leaf) in enumerate(zip(xs, leaves, strict=True)) if x is not leaf}
    else:
        odd = differing(buffers.x, out)
        if op.reads_old:  # fresh memory is not negated
            odd |= negated(outs)
    copies = []
    if odd:
        targets = list(outs)
        for i in odd:
            old, leaf = outs[i], leaves[i]
            if old is not None and leaf is not None:
                target = targets[i] = leaf if op.writes is Role.X else copied(old, leaf)
                copies.append((old, target))
        out = Held.of(targets, like=buffers.x)
    return replace(buffers, out=out), copies


def _rows(coefficients: Tensor, n: int) -> Tensor:
    if coefficients.shape != (n, 2):
        raise bad(
            ValueError, "coefficients", f"a tensor of shape {list(coefficients.shape)} for {n} leaves",
            f"Give shape [{n}, 2]",
        )  # fmt: skip
    return coefficients.detach().to(torch.float64).contiguous()


def dense(xs: list[Tensor], anchors: list[Tensor], *, signed: bool = False) -> Buffers:
    """The leaves and their anchors as the kernels can read them: copied only where there are gaps, overlaps or a lazy
    negation, and an anchor also where it orders its elements differently from its leaf.

    `signed`: whether the operation must not read -x for x. Sums and counts of |x| are even functions, and a step that
    is written back where it was read is odd, so without an anchor these need no check of thousands of leaves.
    """
    if (signed or anchors) and any(map(Tensor.is_neg, itertools.chain(xs, anchors))):
        xs, anchors = [x.resolve_neg() for x in xs], [a.resolve_neg() for a in anchors]
    x = Held.of(xs)
    if x.read.irregular:
        odd = set(x.read.irregular)
        x = Held.of([copied(t, t) if i in odd else t for i, t in enumerate(xs)])
    if not anchors:
        return Buffers(xs[0].device, x)
    anchor = Held.of(anchors)
    if odd := differing(x, anchor):
        pairs = zip(anchors, x.tensors, strict=True)
        anchor = Held.of([copied(a, leaf) if i in odd else a for i, (a, leaf) in enumerate(pairs)])
    return Buffers(xs[0].device, x, anchor)


def copied(t: Tensor, like: Tensor | None) -> Tensor:
    """A copy of t in dense memory, its elements ordered as `empty_like` orders them: the custom ops promise this of
    their results, and torch.compile relies on it."""
    return torch.empty_like(t if like is None else like).copy_(t)


def negated(tensors: Sequence[Tensor | None]) -> set[int]:
    """Indices of lazily negated tensors, whose bits are those of -x (such as `x.conj().imag`). Neither their layout nor
    DLPack shows it."""
    if not any(map(Tensor.is_neg, [t for t in tensors if t is not None])):
        return set()
    return {i for i, t in enumerate(tensors) if t is not None and t.is_neg()}


def differing(x: Held, y: Held) -> set[int]:
    """Indices where y has gaps or overlaps, or orders its elements differently from x."""
    found = set(y.read.irregular)
    for i in {*x.read.permuted, *y.read.permuted}:
        mine, other = x.tensors[i], y.tensors[i]
        if mine is not None and other is not None and mine.stride() != other.stride():
            found.add(i)
    return found
