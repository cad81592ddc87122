"""Leaves placed in every way, on one mesh and on several: values, gradients and collectives; run by test_mesh.py."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from fused_penalty.torch import mesh as _torch_mesh
from fused_penalty.torch import penalty, sums
from tests.support import oracle
from tests.torch_only.mesh.leaves import L1, L2, array, counted, holds, leaf, line, spread, whole


def placements_on_one_dimension(rank: int, world: int) -> None:
    mesh = line(world)
    holds(
        {
            "uneven": spread(leaf((5, 3), seed=1), mesh, [Shard(0)]),
            "empty_on_most": spread(leaf((1, 6), seed=2), mesh, [Shard(0)]),
            "columns": spread(leaf((3, 7), seed=3), mesh, [Shard(1)]),
            "replicated": spread(leaf((4,), seed=4), mesh, [Replicate()]),
            "scalar": spread(leaf((), seed=5), mesh, [Replicate()]),
            "half": spread(leaf((9, 2), torch.float16, 6), mesh, [Shard(0)]),
            "brain": spread(leaf((2, 9), torch.bfloat16, 7), mesh, [Shard(1)]),
            "plain": leaf((6,), seed=8).requires_grad_(),
        },
        world,
    )
    holds({"double": spread(leaf((70, 1000), torch.float64, 9), mesh, [Shard(0)])}, world)
    holds({"all_empty": spread(leaf((0, 3)), mesh, [Shard(0)]), "b": spread(leaf((3,)), mesh, [Shard(0)])}, world)


def placements_on_two_dimensions(rank: int, world: int) -> None:
    for shape in ((2, world // 2), (1, world), (world, 1)):
        mesh = init_device_mesh("cpu", shape)
        pairs = [
            [Replicate(), Shard(0)],  # HSDP
            [Shard(0), Replicate()],
            [Shard(0), Shard(0)],
            [Shard(1), Shard(0)],
            [Replicate(), Replicate()],
        ]
        params = {str(i): spread(leaf((5, 3), seed=i), mesh, p) for i, p in enumerate(pairs)}
        holds(params, world)
        holds({"one": params["0"].detach().requires_grad_()}, world)


def leaves_on_a_mesh_and_on_parts_of_it(rank: int, world: int) -> None:
    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    both = {
        "dp": spread(leaf((5, 3), seed=1), mesh["dp"], [Shard(0)]),
        "tp": spread(leaf((5, 3), seed=2), mesh["tp"], [Shard(1)]),
    }
    holds({**both, "dp_tp": spread(leaf((7, 3), seed=3), mesh, [Shard(0), Shard(1)])}, world)
    holds({k: x.detach().requires_grad_() for k, x in both.items()}, world)  # no mesh holds the other


def stages_on_meshes_of_their_own(rank: int, world: int) -> None:
    """Pipeline stages pass different lists, each over its own part of the world."""
    half = world // 2
    stages = init_device_mesh("cpu", (2, 1, half), mesh_dim_names=("pp", "dp", "tp"))
    full = leaf((5, 3), seed=rank // half)
    for mesh, placements in ((stages["tp"], [Shard(0)]), (stages["dp", "tp"], [Replicate(), Shard(0)])):
        local = distribute_tensor(full, mesh, placements)
        value = counted(functools.partial(penalty, {f"stage{rank // half}": local}, L1, L2), 1)
        np.testing.assert_allclose(float(value), oracle.penalty([array(full)], [L1], [L2]), rtol=1e-6)


def more_leaves_than_one_message(rank: int, world: int) -> None:
    """The first all-reduce has one size for all lists; what does not fit goes with a second."""
    mesh = line(world)
    for n, collectives in ((_torch_mesh.HEAD - 2, 1), (_torch_mesh.HEAD - 1, 2)):
        some = [distribute_tensor(torch.full((3,), float(i)), mesh, [Shard(0)]) for i in range(7)]
        found = counted(functools.partial(sums, [some[i % 7] for i in range(n)]), collectives)
        assert found.abs.tolist() == [3.0 * (i % 7) for i in range(n)]


def infinite_values_of_a_replica(rank: int, world: int) -> None:
    x = spread(torch.tensor([1.0, -torch.inf]), line(world), [Replicate()])
    assert penalty([x], L1, L2).item() == torch.inf
    assert sums([x]).abs.tolist() == [torch.inf]
    nan = spread(torch.full((2, 8), torch.nan), line(world), [Shard(1)])
    assert penalty([nan], L1).isnan()


def result_of_an_asynchronous_redistribution(rank: int, world: int) -> None:
    full, mesh = leaf((6, 2)), line(world)
    expected = oracle.penalty([array(full)], [L1], [L2])
    x = spread(full, mesh, [Shard(0)])
    value = penalty([x.redistribute(mesh, [Replicate()], async_op=True)], L1, L2)
    np.testing.assert_allclose(value.item(), expected, rtol=1e-6)
    value.backward()
    torch.testing.assert_close(whole(x.grad), L1 * full.sign() + 2 * L2 * full)
    value = penalty([x.detach().redistribute(mesh, [Replicate()], async_op=True)], L1, L2)
    np.testing.assert_allclose(value.item(), expected, rtol=1e-6)
