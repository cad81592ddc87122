"""What the native torch launchers share: tensors in, addresses to the kernel, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ... import _cpu
from ..._core.errors import bad
from ..._core.operations import Op
from ..._core.plan import BOTH


@dataclass(frozen=True, slots=True)
class Held:
    """A list of tensors and what the native reader found in it. Addresses are had only together with the tensors that
    they point into, so they stay good for as long as anybody has them."""

    tensors: Sequence[Tensor | None]
    read: _cpu.Tensors

    @staticmethod
    def of(tensors: Sequence[Tensor | None], like: Held | None = None) -> Held:
        """`like`: None in the list then stands for an absent tensor of that one's size."""
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
        """Those that there are: x, anchor, out."""
        return [held.read for held in (self.x, self.anchor, self.out) if held is not None]


# (op, arrays, strengths (n, 2) float64 or None, terms of the leaves) -> totals (n, len(op.columns)) float64
Launch = Callable[[Op, Buffers, Tensor | None, tuple[int, ...] | int], Tensor]


@dataclass(frozen=True)
class Launcher:
    """The interface of a torch backend, over the launch of one device type."""

    launch: Launch

    def launch_sums(self, xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Σ|d| and Σd² of each leaf, (n, 2) float64, d = x - anchor."""
        return self.launch(Op.SUMS, dense(xs, anchors), None, BOTH)

    def launch_stats(self, xs: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Σ|d|, Σd², max|d|, zeros and non-finite numbers of each leaf, (n, 5) float64."""
        return self.launch(Op.STATS, dense(xs, anchors), None, BOTH)

    def launch_gradients(
        self, xs: list[Tensor], anchors: list[Tensor], strengths: Tensor, terms: Sequence[int], live: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """(sums, gradients of the leaves in `live`); strengths (n, 2) are the factors of sign(d) and of d."""
        buffers = dense(xs, anchors, signed=True)
        leaves = buffers.x.tensors
        out: list[Tensor | None] = [None] * len(leaves)
        gradients = []
        for i in live:
            leaf = leaves[i]
            assert leaf is not None
            out[i] = gradient = torch.empty_like(leaf)
            gradients.append(gradient)
        buffers = replace(buffers, out=Held.of(out, like=buffers.x))
        return self.launch(Op.GRADIENT, buffers, _factors(strengths, len(xs)), tuple(terms)), gradients

    def launch_update(
        self,
        op: Op,
        xs: list[Tensor],
        anchors: list[Tensor],
        outs: list[Tensor | None],
        strengths: Tensor,
        terms: Sequence[int],
    ) -> Tensor:
        """In place: writes each of `outs` (a gradient, or the leaf itself) and returns the sums of what it read.

        None: that leaf is only read. An output whose elements lie otherwise than its leaf's goes through a copy.
        """
        adding = op is Op.ADD_GRADIENT
        buffers = dense(xs, anchors, signed=adding)
        leaves, out = buffers.x.tensors, Held.of(outs, like=buffers.x)
        if adding:
            odd = _differing(buffers.x, out) | _negated(outs)
        else:  # the leaf itself is written
            odd = {i for i, (x, leaf) in enumerate(zip(xs, leaves, strict=True)) if x is not leaf}
        copies = []
        if odd:
            targets = list(outs)
            for i in odd:
                old, leaf = outs[i], leaves[i]
                if old is not None and leaf is not None:
                    target = targets[i] = _copied(old, leaf) if adding else leaf
                    copies.append((old, target))
            out = Held.of(targets, like=buffers.x)
        total = self.launch(op, replace(buffers, out=out), _factors(strengths, len(xs)), tuple(terms))
        for old, target in copies:
            old.copy_(target)
        return total


def _factors(strengths: Tensor, n: int) -> Tensor:
    if strengths.shape != (n, 2):
        raise bad(
            ValueError, "strengths", f"a tensor of shape {list(strengths.shape)} for {n} leaves",
            f"Give shape [{n}, 2]",
        )  # fmt: skip
    return strengths.detach().to(torch.float64).contiguous()


def dense(xs: list[Tensor], anchors: list[Tensor], *, signed: bool = False) -> Buffers:
    """The leaves and their anchors as the kernels can read them: copied only where there are gaps, overlaps or a lazy
    negation, and an anchor where it orders its elements otherwise than its leaf.

    `signed`: the operation is not one that may read -x for x. Sums and counts of |x| are even, and a step that is
    written back to where it was read is odd; so without an anchor nobody asks 2,000 leaves for their sign.
    """
    if (signed or anchors) and (_negated(xs) or _negated(anchors)):
        xs, anchors = [x.resolve_neg() for x in xs], [a.resolve_neg() for a in anchors]
    x = Held.of(xs)
    if x.read.irregular:
        odd = set(x.read.irregular)
        x = Held.of([_copied(t, t) if i in odd else t for i, t in enumerate(xs)])
    if not anchors:
        return Buffers(xs[0].device, x)
    anchor = Held.of(anchors)
    if odd := _differing(x, anchor):
        pairs = zip(anchors, x.tensors, strict=True)
        anchor = Held.of([_copied(a, leaf) if i in odd else a for i, (a, leaf) in enumerate(pairs)])
    return Buffers(xs[0].device, x, anchor)


def _copied(t: Tensor, like: Tensor | None) -> Tensor:
    """t in dense memory, its elements in the order that `empty_like` gives them: what the custom ops promise of their
    results, and torch.compile relies on."""
    return torch.empty_like(t if like is None else like).copy_(t)


def _negated(tensors: Sequence[Tensor | None]) -> set[int]:
    """Where the bits are those of -x: imaginary parts of conjugates, whose layout shows nothing of it. DLPack does not
    tell either."""
    if not any(map(Tensor.is_neg, [t for t in tensors if t is not None])):
        return set()
    return {i for i, t in enumerate(tensors) if t is not None and t.is_neg()}


def _differing(x: Held, y: Held) -> set[int]:
    """Where y has gaps or overlaps, or its elements in another order than x has."""
    found = set(y.read.irregular)
    for i in {*x.read.permuted, *y.read.permuted}:
        mine, other = x.tensors[i], y.tensors[i]
        if mine is not None and other is not None and mine.stride() != other.stride():
            found.add(i)
    return found
