"""`fused_penalty.torch.optim` on DTensors, as test_mesh.py runs it on every rank."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from fused_penalty.torch.optim import SGD, AdamW
from tests.torch_only.mesh.leaves import counted, leaf, same_everywhere, whole

SHAPES = [(8, 6), (5, 3), (12,)]  # the second does not divide by the ranks
KINDS: list[tuple[Any, dict[str, Any]]] = [(SGD, {"momentum": 0.9}), (AdamW, {"amsgrad": True})]


def as_in_one_process(rank: int, world: int) -> None:
    """The same steps as on whole tensors, the penalty of all, and one all-reduce."""
    mesh = init_device_mesh("cpu", (world,))
    for cls, options in KINDS:
        full = [torch.nn.Parameter(leaf(s, seed=i)) for i, s in enumerate(SHAPES)]
        placements = [[Shard(0)], [Shard(0)], [Replicate()]]
        parts = [
            torch.nn.Parameter(distribute_tensor(p.detach().clone(), mesh, where))
            for p, where in zip(full, placements, strict=True)
        ]
        alone = cls(full, lr=0.1, l1=0.05, l2=0.02, **options)
        spread = cls(parts, lr=0.1, l1=0.05, l2=0.02, **options)
        for t in range(3):
            for i, (p, q) in enumerate(zip(full, parts, strict=True)):
                p.grad = leaf(p.shape, seed=100 * t + i)
                q.grad = distribute_tensor(p.grad.clone(), mesh, placements[i])
            alone.step()
            if t == 0:
                spread.step()  # the first call of a list compares the lists of all ranks
            else:
                counted(spread.step, 1)
            found = spread.summary
            for name, value in zip(found._fields, found, strict=True):
                torch.testing.assert_close(value, getattr(alone.summary, name), rtol=1e-6, atol=1e-6)
                same_everywhere(value, world)
        for p, q in zip(full, parts, strict=True):
            torch.testing.assert_close(whole(q.detach()), p.detach(), rtol=1e-6, atol=1e-7)
            state, local = alone.state[p], spread.state[q]
            for name, value in state.items():
                torch.testing.assert_close(whole(local[name]), value, rtol=1e-6, atol=1e-9)
