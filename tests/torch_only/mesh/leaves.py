"""DTensor leaves, and what is asked of a call on them, for the checks that test_mesh.py runs on every rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Placement, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

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
