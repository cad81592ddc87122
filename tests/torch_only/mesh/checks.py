"""What holds for DTensors on every rank; run by test_mesh.py in 2 and in 4 processes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

from fused_penalty.torch import mesh as _torch_mesh
from fused_penalty.torch import penalty, penalty_and_grad, sums
from tests.support import oracle
from tests.support.check import close_gradient

L1, L2 = 0.01, 0.003


def leaf(shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """The same values on every rank."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)).to(dtype)


def spread(full: Tensor, mesh: DeviceMesh, placements: Sequence[Placement]) -> Tensor:
    return distribute_tensor(full, mesh, list(placements)).requires_grad_()


def array(x: Tensor) -> np.ndarray:
    """float64, which holds every value of the narrower types."""
    return x.detach().double().numpy()


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def counted(f: Callable[[], Any], all_reduces: int) -> Any:
    """The result of f, which makes exactly that many all-reduces and no other collective."""
    with CommDebugMode() as mode:
        found = f()
    counts = {str(op): n for op, n in mode.get_comm_counts().items()}
    assert counts == ({"c10d.allreduce_": all_reduces} if all_reduces else {}), counts
    return found


def same_everywhere(x: Tensor, world: int) -> None:
    """The same bits on every rank."""
    found: list[Any] = [None] * world
    dist.all_gather_object(found, x.detach().numpy().tobytes())
    assert len(set(found)) == 1, found


def holds(params: dict[str, Tensor], world: int, collectives: int = 1) -> None:
    """Value, sums and gradients of params, which may be DTensors, as those of the same tensors in one process."""
    full = {name: whole(x.detach()) for name, x in params.items()}
    arrays = [array(x) for x in full.values()]
    expected = oracle.penalty(arrays, [L1] * len(full), [L2] * len(full))

    value = counted(lambda: penalty(params, L1, L2), collectives)
    counted(value.backward, 0)
    np.testing.assert_allclose(penalty(params, L1, L2, backend="reference").item(), expected, rtol=1e-6)
    again, grads = counted(lambda: penalty_and_grad(params, L1, L2), collectives)
    found = counted(lambda: sums(params), collectives)
    for v in (value, again):
        assert type(v) is Tensor
        np.testing.assert_allclose(float(v.detach()), expected, rtol=1e-6)
        same_everywhere(v, world)
    for a, s, x in zip(found.abs.tolist(), found.square.tolist(), arrays, strict=True):
        np.testing.assert_allclose((a, s), oracle.sums(x), rtol=1e-6)

    _, alone = penalty_and_grad(full, L1, L2)
    for name, x in params.items():
        for g in (x.grad, grads[name]):
            if isinstance(x, DTensor):
                assert isinstance(g, DTensor)
                assert (g.placements, g.device_mesh) == (x.placements, x.device_mesh)
                assert (g.shape, g.stride(), g.dtype) == (x.shape, x.stride(), x.dtype)
            torch.testing.assert_close(whole(g), alone[name], rtol=0, atol=0)
        dtype = str(x.dtype).removeprefix("torch.")
        if dtype != "bfloat16":  # NumPy has none; the comparison above stands
            close_gradient(whole(x.grad).numpy(), oracle.gradient(array(full[name]), L1, L2), dtype)


def line(world: int) -> DeviceMesh:
    return init_device_mesh("cpu", (world,))


# Placements


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


# Arguments


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


# Bad input


def partial_sums_are_refused(rank: int, world: int) -> None:
    x = DTensor.from_local(leaf((3,)), line(world), [Partial()])
    with pytest.raises(ValueError, match=r"params at 'w': placed as \(Partial\(sum\),\).*redistribute"):
        penalty({"w": x}, L1)


def a_mesh_without_this_rank_is_refused(rank: int, world: int) -> None:
    mesh = DeviceMesh("cpu", [0])
    x = DTensor.from_local(leaf((3,)), mesh, [Replicate()])
    if rank == 0:
        np.testing.assert_allclose(penalty([x], L1).item(), L1 * leaf((3,)).abs().sum().item(), rtol=1e-6)
    else:
        with pytest.raises(ValueError, match=rf"params at '0': its mesh has the ranks \[0\], and this is rank {rank}"):
            penalty([x], L1)


def ranks_that_pass_different_lists(rank: int, world: int) -> None:
    """All get the error, none waits, and the next call is right."""
    mesh = line(world)
    first = rank == 0

    def placed(shape: Sequence[int], *placements: Placement) -> Tensor:
        return DTensor.from_local(leaf(shape), mesh, list(placements or (Shard(0),)))

    a, b = placed((2, 2)), placed((2, 2))
    lists: dict[str, Any] = {
        "one leaf more": [a, b] if first else [a],
        "very many more": [a] * 3000 if first else [a],
        "names in another order": {"a": a, "b": b} if first else {"b": b, "a": a},
        "shapes": [placed((4,))] if first else [placed((2, 2))],
        "dtypes": [a.half()] if first else [a],
        "placements": [placed((4, 4 // world), Shard(1))] if first else [placed((4 // world, 4))],
        "kinds": [a, leaf((2 * world, 2))] if first else [a, b],
    }
    for params in lists.values():
        for verb in (penalty, penalty_and_grad):
            with pytest.raises(ValueError, match=r"params: the ranks \[0, 1.* do not pass the same list \(rank"):
                verb(params, L1)
        with pytest.raises(ValueError, match="do not pass the same list"):
            sums([a, b], mask=[True, first])
    holds({"a": spread(leaf((5, 3)), mesh, [Shard(0)])}, world)


def ranks_that_change_their_list_where_a_look_costs_a_wait(rank: int, world: int) -> None:
    """As on a GPU: a list is compared on the host at its first call. Whoever keeps an old one while others change
    theirs gets NaN."""
    mesh = line(world)
    a, b = (DTensor.from_local(leaf((2, n)), mesh, [Shard(0)]) for n in (3, 4))
    with mock.patch.object(_torch_mesh, "_is_free_to_read", return_value=False):
        for _ in range(2):
            np.testing.assert_allclose(penalty([a], 1.0).item(), world * leaf((2, 3)).abs().sum().item(), rtol=1e-6)
        if rank == 0:
            assert penalty([a], 1.0).isnan()
        else:
            with pytest.raises(ValueError, match="do not pass the same list"):
                penalty([b], 1.0)
