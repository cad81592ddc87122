"""The verbs that write in place, and `stats`, on DTensors; run by test_mesh.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from fused_penalty.torch import add_grad_, attach, prox_, regularize_, stats, sums
from tests.torch_only.mesh.leaves import counted, leaf, line, same_everywhere, spread, whole
from tests.torch_only.mesh.steps import L1, L2, inputs, model, part_of, sharded


def placed(world: int) -> dict[str, Tensor]:
    mesh, grid = line(world), init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    return {
        "uneven": spread(leaf((5, 3), seed=1), mesh, [Shard(0)]),
        "empty_on_most": spread(leaf((1, 6), seed=2), mesh, [Shard(0)]),
        "columns": spread(leaf((3, 7), torch.bfloat16, seed=3), mesh, [Shard(1)]),
        "replicated": spread(leaf((4,), torch.float64, seed=4), mesh, [Replicate()]),
        "hybrid": spread(leaf((5, 3), torch.float16, seed=5), grid, [Replicate(), Shard(0)]),
        "part": spread(leaf((4, 4), seed=6), grid["tp"], [Shard(0)]),
        "plain": leaf((6,), seed=7).requires_grad_(),
        "frozen": nn.Parameter(spread(leaf((3, 2), seed=8), mesh, [Shard(0)]).detach(), requires_grad=False),
    }


def with_gradients(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """All but one have a gradient."""
    for x in list(params.values())[1:]:
        if x.requires_grad:
            x.grad = (0.5 * x).detach()
    return params


def alone(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same in one process."""
    found = {n: whole(x.detach()).clone().requires_grad_() for n, x in params.items()}
    found["frozen"] = nn.Parameter(found["frozen"].detach(), requires_grad=False)
    return found


WRITES: dict[str, Callable[[Any], Tensor]] = {
    "add_grad_": lambda p: add_grad_(p, L1, L2),
    "add_grad_ that creates": lambda p: add_grad_(p, dict.fromkeys(p, L1), L2, create=True),
    "prox_": lambda p: prox_(p, 0.3, 0.2, step=0.5),
    "regularize_": lambda p: regularize_(p, 0.2, 0.1),
}


def writes_in_place(rank: int, world: int) -> None:
    for name, write in WRITES.items():
        params = with_gradients(placed(world))
        single = with_gradients(alone(params))
        sums(params)  # at a list's first call the ranks compare it before anything is written
        value = counted(lambda w=write, p=params: w(p), 1)
        np.testing.assert_allclose(value.item(), write(single).item(), rtol=1e-6)
        same_everywhere(value, world)
        for n, x in params.items():
            torch.testing.assert_close(whole(x.detach()), single[n].detach(), rtol=0, atol=0, msg=f"{name} {n}")
            assert (x.grad is None) == (single[n].grad is None), (name, n)
            if x.grad is not None:
                torch.testing.assert_close(whole(x.grad), single[n].grad, rtol=0, atol=0, msg=f"{name} {n}")
                assert getattr(x.grad, "placements", None) == getattr(x, "placements", None)


def autograd_notices_the_write(rank: int, world: int) -> None:
    x = spread(leaf((5, 3)), line(world), [Shard(0)])
    y = (x * x).sum()
    prox_([x], 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def what_cannot_be_written(rank: int, world: int) -> None:
    x = spread(leaf((4 * world, 3)), line(world), [Shard(0)])
    with pytest.raises(ValueError, match=r"params at '0': the result of an operation that autograd recorded"):
        prox_([2 * x], 0.1)
    with pytest.raises(ValueError, match=r"params at '0': shares elements with '1'"):
        prox_([x, x], 0.1)
    x.grad = x.detach().redistribute(placements=[Replicate()])
    with pytest.raises(ValueError, match=r"params at 'w': its gradient is placed as .*Replicate.* beside .*Shard"):
        add_grad_({"w": x}, 0.1)


def statistics(rank: int, world: int) -> None:
    params = placed(world)
    with torch.no_grad():
        params["plain"][2] = 0.0
        params["uneven"].mul_(torch.inf)
        params["replicated"].fill_(torch.nan)
    found, expected = counted(lambda: stats(params), 2), stats(alone(params))
    assert (found.paths, found.size) == (expected.paths, expected.size)
    for mine, single in zip(found[:5], expected[:5], strict=True):
        torch.testing.assert_close(mine, single, rtol=1e-6, atol=0, equal_nan=True)
        same_everywhere(mine, world)


def attached_to_an_optimizer(rank: int, world: int) -> None:
    """Three steps of FSDP2 with the hook, against one process with it."""
    for mode in ("grad", "prox"):
        models = sharded(line(world)), model()
        optimizers = [torch.optim.SGD(m.named_parameters(), lr=0.1, momentum=0.9) for m in models]
        handles = [attach(o, 0.3, L2, mode=mode) for o in optimizers]
        for _ in range(3):
            for net, optimizer, part in zip(models, optimizers, (part_of(rank, world), lambda x: x), strict=True):
                optimizer.zero_grad()
                net(part(inputs())).square().mean().backward()
                optimizer.step()
            mine, single = (h.penalty for h in handles)
            torch.testing.assert_close(mine, single, rtol=1e-6, atol=0)
            same_everywhere(mine, world)
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(whole(p), q)
        zeros = [int((whole(p) == 0).sum()) for p in models[0].parameters()]
        assert zeros == [int((p == 0).sum()) for p in models[1].parameters()]
        assert (sum(zeros) > 0) == (mode == "prox")


def a_write_after_a_forward_pass_is_kept(rank: int, world: int) -> None:
    """The root's parameters are plain copies then; the write goes to the shards."""
    net, single = sharded(line(world)), model()
    with torch.no_grad():
        net(inputs())
    assert type(net[4].weight) is nn.Parameter
    assert counted(lambda: prox_(net, 0.3), 1).item() == pytest.approx(prox_(single, 0.3).item(), rel=1e-12)
    assert isinstance(net[4].weight, DTensor)
    for p, q in zip(net.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(whole(p.detach()), q.detach(), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(inputs()), single(inputs()))


def different_lists_are_refused_before_a_write(rank: int, world: int) -> None:
    mesh = line(world)
    a, b = (DTensor.from_local(leaf((2, n)), mesh, [Shard(0)]) for n in (5, 6))
    before = [x.to_local().clone() for x in (a, b)]
    for write in (prox_, regularize_):
        with pytest.raises(ValueError, match="do not pass the same list"):
            write([a, b] if rank == 0 else [a], L1, L2)
    for x, old in zip((a, b), before, strict=True):
        assert torch.equal(x.to_local(), old)
