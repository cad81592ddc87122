"""Anchors, learned strengths and masks beside DTensors, and a compiled call; run by test_mesh.py."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from fused_penalty.torch import penalty, penalty_and_grad
from tests.support import oracle
from tests.torch_only.mesh.leaves import L1, L2, array, counted, leaf, line, same_everywhere, spread, whole


def anchors(rank: int, world: int) -> None:
    mesh = line(world)
    xs = [leaf((5, 3), seed=1), leaf((4,), seed=2)]
    ys = [leaf((5, 3), seed=3), leaf((4,), seed=4)]
    placements = [Shard(0)], [Replicate()]
    dx = [spread(x, mesh, p) for x, p in zip(xs, placements, strict=True)]
    dy = [spread(y, mesh, p) for y, p in zip(ys, placements, strict=True)]
    value = counted(lambda: penalty(dx, L1, L2, anchor=dy), 1)
    expected = oracle.penalty([array(x) for x in xs], [L1] * 2, [L2] * 2, [array(y) for y in ys])
    np.testing.assert_allclose(value.item(), expected, rtol=1e-6)
    value.backward()
    _, alone = penalty_and_grad(xs, L1, L2, anchor=ys)
    for x, y, g in zip(dx, dy, alone, strict=True):
        torch.testing.assert_close(whole(x.grad), g, rtol=0, atol=0)
        torch.testing.assert_close(whole(y.grad), -g, rtol=0, atol=0)
        assert y.grad.placements == y.placements
    for wrong in (ys, [spread(y, mesh, [Replicate()]) for y in ys]):
        with pytest.raises(ValueError, match=r"anchor at '0': placed as .* beside a leaf placed as"):
            penalty(dx, L1, anchor=wrong)


def learned_strengths(rank: int, world: int) -> None:
    """∂P/∂l is the global sum, on every rank; so is ∂²P/∂l∂x · v."""
    xs, mesh = [leaf((5, 3), seed=1), leaf((4,), seed=2)], line(world)
    placed = [spread(xs[0], mesh, [Shard(0)]), spread(xs[1], mesh, [Replicate()])]

    def derivatives(params: list[Tensor]) -> list[Tensor]:
        l1 = [torch.tensor(0.1, requires_grad=True), torch.tensor(0.2, requires_grad=True)]
        l2 = torch.tensor(0.3, requires_grad=True)
        value = penalty(params, l1, l2)
        first = torch.autograd.grad(value, [*l1, l2, *params], create_graph=True)
        # a function of the gradient that every rank computes from the same global numbers
        mixed = sum(whole((g * x.detach()).sum()) for g, x in zip(first[3:], params, strict=True))
        return [*first[:3], *torch.autograd.grad(mixed, [*l1, l2])]

    found = derivatives(placed)
    for a, b in zip(found, derivatives([x.requires_grad_() for x in xs]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        same_everywhere(a, world)


def masks_frozen_leaves_and_names(rank: int, world: int) -> None:
    mesh = line(world)
    model = nn.Module()
    model.a = nn.Parameter(distribute_tensor(leaf((5, 3)), mesh, [Shard(0)]))
    model.b = nn.Parameter(distribute_tensor(leaf((4,)), mesh, [Replicate()]), requires_grad=False)
    model.c = nn.Parameter(distribute_tensor(leaf((4,)), mesh, [Shard(0)]))
    model.tied = model.a
    value, grads = penalty_and_grad(model, L1, mask={"a": True, "b": True, "c": False})
    expected = oracle.penalty([array(leaf((5, 3))), array(leaf((4,)))], [L1] * 2, [0.0] * 2)
    np.testing.assert_allclose(value.item(), expected, rtol=1e-6)
    assert isinstance(grads["a"], DTensor)
    assert (grads["b"], grads["c"]) == (None, None)


def under_compile(rank: int, world: int) -> None:
    """With a break in the graph where the DTensors are taken apart."""
    x = spread(leaf((5, 3)), line(world), [Shard(0)])
    expected = penalty([x], L1, L2)
    with warnings.catch_warnings():  # torch's compiler looks at .grad of everything that goes over the break
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        value = torch.compile(lambda: 2 * penalty([x], L1, L2), backend="aot_eager")()
    assert value.item() == 2 * expected.item()
    value.backward()
    torch.testing.assert_close(whole(x.grad), 2 * penalty_and_grad([leaf((5, 3))], L1, L2)[1][0], rtol=0, atol=0)
