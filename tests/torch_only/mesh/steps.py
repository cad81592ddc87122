"""Training steps of sharded models beside the same step in one process; run by test_mesh.py."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from fused_penalty.torch import penalty
from tests.torch_only.mesh.leaves import counted, line, same_everywhere, whole

L1, L2 = 0.01, 0.003
F64 = torch.float64


def model() -> nn.Sequential:
    """The same on every rank; the last layer is too small for most of them to get a row."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1)).to(F64)


def inputs() -> Tensor:
    return torch.randn(8, 7, generator=torch.Generator().manual_seed(1), dtype=F64)


def sharded(mesh: DeviceMesh, *, reshard: bool = True) -> nn.Sequential:
    net = model()
    for layer in (net[0], net[2]):  # the last one belongs to the root
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    return fully_shard(net, mesh=mesh)


def steps_agree(net: nn.Module, part: Callable[[Tensor], Tensor], late: bool = False) -> None:
    """Three SGD steps of loss + penalty in one backward, against one process on the whole batch.

    `late`: the penalty is of the module as it is after the forward pass, not of the parameters from before.
    """
    alone = model()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (net, alone)]
    before = dict(net.named_parameters())
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = net(part(inputs())).square().mean()
        params = dict(net.named_parameters()) if late else before
        spread = any(isinstance(p, DTensor) for p in params.values())
        value = counted(functools.partial(penalty, params, L1, L2), int(spread))
        expected = penalty(alone, L1, L2)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
        same_everywhere(value, torch.distributed.get_world_size())
        (loss + value).backward()
        (alone(inputs()).square().mean() + expected).backward()
        for p, q in zip(net.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(whole(p.grad), q.grad)
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(net.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(whole(p), q)


def part_of(index: int, parts: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.chunk(parts)[index]


def fsdp2(rank: int, world: int) -> None:
    steps_agree(sharded(line(world)), part_of(rank, world))


def hsdp(rank: int, world: int) -> None:
    net = sharded(init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard")))
    assert all(p.placements == (Replicate(), Shard(0)) for p in net.parameters())
    steps_agree(net, part_of(rank, world))


def fsdp2_after_the_forward_pass(rank: int, world: int) -> None:
    """The root keeps its parameters whole until the backward pass: plain tensors, the same on all ranks. They count
    once, beside the DTensors of the other layers."""
    net = sharded(line(world))
    net(part_of(rank, world)(inputs()))
    gathered = dict(net.named_parameters())
    assert [name for name, p in gathered.items() if type(p) is nn.Parameter] == ["4.weight", "4.bias"]
    for reshard in (True, False):  # False: all layers are plain then
        steps_agree(sharded(line(world), reshard=reshard), part_of(rank, world), late=True)

    net(inputs()).sum().backward()
    with pytest.raises(TypeError, match=r"params at '4.weight': its memory has been freed"):
        penalty(gathered, L1, L2)


def tensor_parallel(rank: int, world: int) -> None:
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    net = parallelize_module(model(), line(world), plan)
    assert net[2].weight.placements == (Shard(1),)
    steps_agree(net, lambda x: x)


def fsdp2_over_tensor_parallel(rank: int, world: int) -> None:
    """Layers on the mesh (dp, tp), one with a strided shard, beside a layer on its part dp."""
    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    net = fully_shard(parallelize_module(model(), mesh["tp"], plan), mesh=mesh["dp"])
    assert [p.device_mesh.ndim for p in net.parameters()] == [2, 2, 2, 2, 1, 1]
    steps_agree(net, part_of(mesh.get_local_rank("dp"), 2))


def ddp(rank: int, world: int) -> None:
    """Every rank has the whole model: no collective for the penalty."""
    steps_agree(DistributedDataParallel(model()), part_of(rank, world))
