"""Strengths and steps that are DTensors; run by test_mesh.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_module, distribute_tensor

from fused_penalty import by_path
from fused_penalty.torch import add_grad_, attach, penalty, penalty_and_grad, prox_, regularize_
from tests.torch_only.mesh.leaves import leaf, line, same_everywhere, whole

VALUE = 0.25


def scalar(mesh: DeviceMesh) -> Tensor:
    return distribute_tensor(torch.tensor(VALUE), mesh, [Replicate()])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)
        self.l1 = nn.Parameter(torch.tensor(VALUE))


def a_strength_of_a_distributed_module(rank: int, world: int) -> None:
    """`distribute_module` makes its 0-d parameter a DTensor, too."""
    torch.manual_seed(0)
    model = Model()
    start = {n: p.detach().clone() for n, p in model.net.named_parameters()}
    model = distribute_module(model, line(world))
    assert isinstance(model.l1, DTensor)

    value = penalty(model.net, model.l1)
    value.backward()
    single = {n: p.clone().requires_grad_() for n, p in start.items()}
    l1 = torch.tensor(VALUE, requires_grad=True)
    expected = penalty(single, l1)
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(whole(model.l1.grad), l1.grad)
    assert model.l1.grad.placements == (Replicate(),)
    for n, p in model.net.named_parameters():
        torch.testing.assert_close(whole(p.grad), single[n].grad)

    same_everywhere(prox_(model.net, model.l1), world)
    prox_(start, VALUE)
    for n, p in model.net.named_parameters():
        torch.testing.assert_close(whole(p.detach()), start[n], rtol=0, atol=0)


def every_verb_takes_a_replicated_strength(rank: int, world: int) -> None:
    mesh = line(world)
    for place in (lambda x: x, lambda x: distribute_tensor(x, mesh, [Replicate()])):
        for l1 in (VALUE, scalar(mesh)):
            x = place(leaf((4, 3))).requires_grad_()
            single = leaf((4, 3)).requires_grad_()
            for t in (x, single):
                t.grad = torch.zeros_like(t)
            torch.testing.assert_close(penalty({"w": x}, by_path({"*": l1})), penalty([single], VALUE))
            _, (found,) = penalty_and_grad([x], l1)
            torch.testing.assert_close(whole(found), penalty_and_grad([single], VALUE)[1][0], rtol=0, atol=0)
            add_grad_([x], 0.0, l1)
            add_grad_([single], 0.0, VALUE)
            prox_([x], 1.0, step=l1)
            prox_([single], 1.0, step=VALUE)
            regularize_([x], l1, l1)
            regularize_([single], VALUE, VALUE)
            for tensor, group in ((x, {"l1": l1}), (single, {"l1": VALUE})):
                optimizer = torch.optim.SGD([{"params": [tensor], **group}], lr=0.5)
                attach(optimizer, mode="prox")
                optimizer.step()
            torch.testing.assert_close(whole(x.detach()), single.detach(), rtol=0, atol=0)
            torch.testing.assert_close(whole(x.grad), single.grad, rtol=0, atol=0)


def a_strength_that_is_not_whole_is_refused(rank: int, world: int) -> None:
    mesh = line(world)
    partial = DTensor.from_local(torch.tensor(VALUE), mesh, [Partial()])
    x = leaf((4, 3))
    for verb in (penalty, penalty_and_grad, prox_, regularize_, add_grad_):
        with pytest.raises(ValueError, match=r"^l1: a DTensor placed as .*Partial.* redistribute\(\).*Replicate"):
            verb([x], partial)
    with pytest.raises(ValueError, match=r"^step: a DTensor placed as"):
        prox_([x], 1.0, step=partial)
    torch.testing.assert_close(x, leaf((4, 3)), rtol=0, atol=0)


def a_strength_of_other_ranks_is_refused(rank: int, world: int) -> None:
    elsewhere = DeviceMesh("cpu", [0])
    l1 = DTensor.from_local(torch.tensor(VALUE), elsewhere, [Replicate()])
    x = leaf((4, 3))
    if rank == 0:
        assert penalty([x], l1).item() == penalty([x], VALUE).item()
    else:
        with pytest.raises(ValueError, match=r"^l1: a DTensor .* this rank does not hold whole"):
            penalty([x], l1)
