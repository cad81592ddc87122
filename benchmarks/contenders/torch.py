"""PyTorch's contenders: each function takes a tree and returns the call that is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks.models.cases import L1, L2, MAX_NORM, RATE, Tree

if TYPE_CHECKING:
    from torch import Tensor


def penalty_per_leaf(xs: Sequence[Tensor]) -> Tensor:
    """What people write."""
    return sum(L1 * x.abs().sum() + L2 * x.square().sum() for x in xs)  # type: ignore[return-value]


def naive(tree: Tree) -> Callable[[], object]:
    return lambda: penalty_per_leaf(tree.torch)


def foreach(tree: Tree) -> Callable[[], object]:
    """Both norms, as an elastic net needs them."""
    import torch

    def call() -> Tensor:
        absolute = torch.stack(torch._foreach_norm(tree.torch, 1)).sum()
        square = torch.stack(torch._foreach_norm(tree.torch, 2)).square().sum()
        return L1 * absolute + L2 * square

    return call


def compiled(tree: Tree) -> Callable[[], object]:
    import torch

    torch.compiler.reset()
    f = torch.compile(penalty_per_leaf)
    return lambda: f(tree.torch)


def ours(tree: Tree) -> Callable[[], object]:
    from fused_penalty.torch import penalty

    return lambda: penalty(tree.torch, l1=L1, l2=L2)


def read_limit(tree: Tree) -> Callable[[], object]:
    """One torch.sum over one contiguous float32 buffer of the same bytes (torch.sum of bfloat16 would be bound by
    its conversion, not by the memory)."""
    import torch

    buffer = torch.full((tree.bytes // 4,), 0.02)
    return lambda: buffer.sum()


# Value and gradient, into fresh gradients as autograd makes them.


def _watched(tree: Tree) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in tree.torch]


def naive_backward(tree: Tree) -> Callable[[], object]:
    import torch

    xs = _watched(tree)

    def call() -> object:
        value = penalty_per_leaf(xs)
        return value, torch.autograd.grad(value, xs)

    return call


def compiled_backward(tree: Tree) -> Callable[[], object]:
    import torch

    torch.compiler.reset()
    f = torch.compile(penalty_per_leaf)
    xs = _watched(tree)

    def call() -> object:
        value = f(xs)
        return value, torch.autograd.grad(value, xs)

    return call


def ours_backward(tree: Tree) -> Callable[[], object]:
    import torch

    from fused_penalty.torch import penalty

    xs = _watched(tree)

    def call() -> object:
        value = penalty(xs, l1=L1, l2=L2)
        return value, torch.autograd.grad(value, xs)

    return call


def ours_and_grad(tree: Tree) -> Callable[[], object]:
    from fused_penalty.torch import penalty_and_grad

    return lambda: penalty_and_grad(tree.torch, l1=L1, l2=L2)


def fresh_buffers(tree: Tree) -> Callable[[], object]:
    """Fresh buffers and one write to each: what new gradients cost whoever computes them."""
    import torch

    return lambda: [torch.empty_like(x).fill_(0.02) for x in tree.torch]


def copy_limit(tree: Tree) -> Callable[[], object]:
    """One copy between two contiguous buffers of the same bytes that exist already."""
    import torch

    source = torch.full((tree.bytes // 4,), 0.02)
    target = torch.full_like(source, 0.0)
    return lambda: target.copy_(source)


# In place: gradients that exist already get the penalty's share, or the parameters are updated themselves.


def _with_grads(tree: Tree) -> tuple[list[Tensor], list[Tensor]]:
    xs = _watched(tree)
    for x, g in zip(xs, tree.torch, strict=True):
        x.grad = g.clone()
    return xs, [x.grad for x in xs if x.grad is not None]


def add_limit(tree: Tree) -> Callable[[], object]:
    """One g.add_(x) over two contiguous buffers of the same bytes: what reads and writes the same."""
    import torch

    x = torch.full((tree.bytes // 4,), 0.02)
    g = torch.full_like(x, 0.0)
    return lambda: g.add_(x)


def pass_limit(tree: Tree) -> Callable[[], object]:
    """One x.mul_(1.0) over one contiguous buffer of the same bytes."""
    import torch

    x = torch.full((tree.bytes // 4,), 0.02)
    return lambda: x.mul_(1.0)


def naive_add(tree: Tree) -> Callable[[], object]:
    xs, _ = _with_grads(tree)
    return lambda: penalty_per_leaf(xs).backward()


def foreach_add(tree: Tree) -> Callable[[], object]:
    """Value and gradient with the multi-tensor operations that torch has."""
    import torch

    xs, grads = _with_grads(tree)
    xs = [x.detach() for x in xs]
    value = foreach(tree)

    def call() -> object:
        torch._foreach_add_(grads, torch._foreach_sign(xs), alpha=L1)
        torch._foreach_add_(grads, xs, alpha=2 * L2)
        return value()

    return call


def ours_add(tree: Tree) -> Callable[[], object]:
    from fused_penalty.torch import add_grad_

    xs, _ = _with_grads(tree)
    return lambda: add_grad_(xs, l1=L1, l2=L2)


def foreach_prox(tree: Tree) -> Callable[[], object]:
    """Soft-thresholding with multi-tensor operations; no value."""
    import torch

    xs = [x.clone() for x in tree.torch]

    def call() -> None:
        clipped = torch._foreach_clamp_max(torch._foreach_clamp_min(xs, -RATE * L1), RATE * L1)
        torch._foreach_sub_(xs, clipped)
        torch._foreach_div_(xs, 1 + 2 * RATE * L2)

    return call


def ours_prox(tree: Tree) -> Callable[[], object]:
    from fused_penalty.torch import prox_

    xs = [x.clone() for x in tree.torch]
    return lambda: prox_(xs, l1=L1, l2=L2, step=RATE)


def torch_clip(tree: Tree) -> Callable[[], object]:
    """torch's own, by its default with multi-tensor operations."""
    import torch

    xs, _ = _with_grads(tree)
    return lambda: torch.nn.utils.clip_grad_norm_(xs, MAX_NORM)


def ours_clip(tree: Tree) -> Callable[[], object]:
    from fused_penalty.torch import clip_grad_norm_

    xs, _ = _with_grads(tree)
    return lambda: clip_grad_norm_(xs, MAX_NORM)


def ours_regularize(tree: Tree) -> Callable[[], object]:
    from fused_penalty.torch import regularize_

    xs = [x.clone() for x in tree.torch]
    return lambda: regularize_(xs, l1=RATE * L1, l2=2 * RATE * L2)
