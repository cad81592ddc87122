"""`global_norm` and `clip_grad_norm_` on DTensors of several meshes; run by test_mesh.py."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from fused_penalty.torch import clip_grad_norm_, global_norm
from tests.torch_only.mesh.leaves import counted, leaf, line, same_everywhere, spread, whole
from tests.torch_only.mesh.steps import inputs, model, part_of, sharded
from tests.torch_only.mesh.writes import placed

ORDERS = (1, 2, math.inf)


def of_whole(tensors: list[Tensor], order: float) -> float:
    """In one process, in float64."""
    return float(torch.linalg.vector_norm(torch.cat([whole(x.detach()).double().flatten() for x in tensors]), order))


def with_gradients(world: int) -> list[Tensor]:
    """Leaves on a line, on a grid and on a part of it, plain ones and one without a gradient."""
    params = [x for x in placed(world).values() if x.requires_grad]
    for x in params[1:]:
        x.grad = (3 * x).detach()
    return params


def norms(rank: int, world: int) -> None:
    params = list(placed(world).values())
    for order in ORDERS:
        value = counted(functools.partial(global_norm, params, order), 2 if order == math.inf else 1)
        assert type(value) is Tensor
        assert value.dtype is torch.float64  # that of one leaf
        np.testing.assert_allclose(float(value.detach()), of_whole(params, order), rtol=1e-6)
        same_everywhere(value, world)


def a_derivative_of_the_norm(rank: int, world: int) -> None:
    mesh = line(world)
    params = [spread(leaf((5, 3), seed=1), mesh, [Shard(0)]), spread(leaf((4,), seed=2), mesh, [Replicate()])]
    value = counted(lambda: global_norm(params), 1)
    counted(value.backward, 0)
    for x in params:
        torch.testing.assert_close(whole(x.grad), whole(x.detach()) / value.item())
        assert x.grad.placements == x.placements


def clipping(rank: int, world: int) -> None:
    """torch's own refuses gradients on several meshes."""
    for order in ORDERS:
        for max_norm in (0.5, 1e6, torch.tensor(0.5)):
            params = with_gradients(world)
            expected = of_whole([x.grad for x in params[1:]], order)
            factor = min(float(max_norm) / expected, 1.0)
            call = functools.partial(clip_grad_norm_, params, max_norm, order)
            value = counted(call, 2 if order == math.inf else 1)
            assert type(value) is Tensor
            np.testing.assert_allclose(float(value), expected, rtol=1e-6)
            same_everywhere(value, world)
            assert params[0].grad is None
            for x in params[1:]:
                wanted = factor * 3 * whole(x.detach()).double()
                torch.testing.assert_close(whole(x.grad), wanted.to(x.dtype), rtol=None, atol=None)
                assert getattr(x.grad, "placements", None) == getattr(x, "placements", None)


def a_norm_that_is_not_finite(rank: int, world: int) -> None:
    """An error on every rank, also on those that hold no such element."""
    x = spread(torch.arange(4.0 * world), line(world), [Shard(0)])
    x.grad = torch.where(x.detach() == 1, torch.inf, x.detach())
    before = x.grad.to_local().clone()
    with pytest.raises(RuntimeError, match=r"The total norm of order 2\.0 .* is non-finite"):
        clip_grad_norm_([x], 1.0, error_if_nonfinite=True)
    assert torch.equal(x.grad.to_local(), before)


def what_is_refused(rank: int, world: int) -> None:
    mesh = line(world)
    x = spread(leaf((4, 3)), mesh, [Replicate()])
    x.grad = DTensor.from_local(leaf((4, 3)), mesh, [Partial()], run_check=False)
    with pytest.raises(ValueError, match=r"^parameters at '0\.grad': placed as .*Partial"):
        clip_grad_norm_([x], 1.0)
    a, b = (spread(leaf((2 * world, n)), mesh, [Shard(0)]) for n in (5, 7))
    for p in (a, b):
        p.grad = p.detach().clone()
    with pytest.raises(ValueError, match=r"^parameters: the ranks .* do not pass the same list"):
        clip_grad_norm_([a, b] if rank == 0 else [a], 0.1)
    for p in (a, b):
        assert torch.equal(whole(p.grad), whole(p.detach()))


def autograd_notices_the_write(rank: int, world: int) -> None:
    x = spread(leaf((5, 3)), line(world), [Shard(0)])
    x.grad = x.detach().clone()
    y = (x.grad * spread(leaf((5, 3)), line(world), [Shard(0)])).sum()
    clip_grad_norm_([x], 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def steps_of_fsdp2(rank: int, world: int) -> None:
    """Beside one process on the whole batch with torch's own clipping."""
    models = sharded(line(world)), model()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in models]
    clips = clip_grad_norm_, torch.nn.utils.clip_grad_norm_
    for _ in range(3):
        found = []
        for net, optimizer, clip, part in zip(
            models, optimizers, clips, (part_of(rank, world), lambda x: x), strict=True
        ):
            optimizer.zero_grad()
            net(part(inputs())).square().mean().backward()
            found.append(clip(net.parameters(), 0.01))
            optimizer.step()
        torch.testing.assert_close(*found, rtol=1e-9, atol=0)
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(whole(p.detach()), q.detach())
