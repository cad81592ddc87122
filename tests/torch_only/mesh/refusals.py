"""What is refused on a mesh, on every rank alike, so that none waits for another; run by test_mesh.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from fused_penalty.torch import mesh as _torch_mesh
from fused_penalty.torch import penalty, penalty_and_grad, sums
from tests.torch_only.mesh.leaves import L1, holds, leaf, line, spread


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
