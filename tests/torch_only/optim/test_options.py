"""How a step is told what to do: groups, schedules, tensors, masks, rules, anchors, closures and hooks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fused_penalty
import fused_penalty.torch as fp
from fused_penalty.torch.optim import SGD, Adam, AdamW
from tests.torch_only.optim.cases import EVERY, ON_EACH, param


@ON_EACH
def test_groups_have_options_of_their_own(backend: str) -> None:
    a, b, c = param(40), param(30, seed=1), param(20, seed=2)
    alone = [nn.Parameter(p.detach().clone()) for p in (a, b, c)]
    own = [{"lr": 0.1, "l1": 0.5}, {"lr": 0.02, "l2": 1.0, "amsgrad": True}, {"lr": 0.3, "maximize": True}]
    together = Adam([{"params": [p], **o} for p, o in zip((a, b, c), own, strict=True)], l1=0.25, backend=backend)
    apart = [Adam([p], backend=backend, **{"l1": 0.25, **o}) for p, o in zip(alone, own, strict=True)]
    for t in range(3):
        for p, q in zip((a, b, c), alone, strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
            q.grad = p.grad.clone()
        together.step()
        for optimizer in apart:
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip((a, b, c), alone, strict=True))
    assert float(together.penalty) == pytest.approx(sum(float(o.penalty) for o in apart), rel=1e-6)


def test_a_scheduler_changes_strength_and_rate() -> None:
    a = param(40)
    optimizer = SGD([a], lr=1.0, l1=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    a.grad = torch.zeros(40)
    optimizer.step()
    scheduler.step()
    optimizer.param_groups[0]["l1"] = 0.25
    before = a.detach().clone()
    optimizer.step()
    assert torch.allclose(a.detach(), torch.nn.functional.softshrink(before, 0.125))


def test_tensors_as_rate_and_strength() -> None:
    a, b = param(40), param(40)
    l1 = torch.tensor(0.5)
    moving = AdamW([a], lr=torch.tensor(0.1), l1=l1)
    fixed = AdamW([b], lr=0.1, l1=0.5)
    for strength in (0.5, 0.25):
        l1.fill_(strength)
        fixed.param_groups[0]["l1"] = strength
        moving.step()
        fixed.step()
        assert torch.allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_a_bad_device_scalar_gives_nan(bad: float) -> None:
    """It is not read on the host, so it cannot be refused; but it must not give plausible numbers."""
    a = param(10)
    optimizer = Adam([a], lr=0.1, l1=torch.tensor(bad))
    optimizer.step()
    assert a.detach().isnan().all()


@pytest.mark.parametrize("l1", [0.0, 0.25])
def test_a_momentum_that_never_settles(l1: float) -> None:
    """torch allows 1; the length of the step in the long run would be infinite."""
    a, b = param(40), param(40)
    ours, its = SGD([a], lr=0.1, momentum=1.0, l1=l1), torch.optim.SGD([b], lr=0.1, momentum=1.0)
    for _ in range(2):
        ours.step()
        its.step()
        with torch.no_grad():
            b.copy_(torch.nn.functional.softshrink(b, 0.1 * l1))
    assert torch.allclose(a, b, atol=1e-6)


def test_mask_and_names() -> None:
    model = nn.Linear(4, 3)
    optimizer = Adam(model.named_parameters(), lr=0.1, l1=0.5, mask={"weight": True, "bias": False})
    plain = nn.Linear(4, 3)
    plain.load_state_dict(model.state_dict())
    its = torch.optim.Adam(plain.parameters(), lr=0.1)
    value = 0.5 * float(model.weight.detach().abs().sum())
    for m, o in ((model, optimizer), (plain, its)):
        m(torch.ones(2, 4)).square().sum().backward()
        o.step()
    assert torch.allclose(model.bias, plain.bias, atol=1e-7)
    assert not torch.allclose(model.weight, plain.weight, atol=1e-3)
    assert float(optimizer.penalty) == pytest.approx(value, rel=1e-6)


def test_rules_by_path() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    rule = fused_penalty.by_path({"0.*": 1.0, "*": 0.0})
    optimizer = SGD(model.named_parameters(), lr=0.1, l1=rule)
    model(torch.ones(1, 4)).sum().backward()
    with torch.no_grad():
        value = float(fp.penalty(model, l1=rule))
    optimizer.step()
    assert float(optimizer.penalty) == pytest.approx(value, rel=1e-6)


def test_an_anchor_beside_a_mask() -> None:
    """What the mask leaves out is neither pulled to the anchor nor to zero."""
    a, b = param(6), param(5, seed=1)
    start = b.detach().clone()
    a.grad, b.grad = torch.zeros(6), torch.zeros(5)
    optimizer = SGD([a, b], lr=1.0, l1=100.0, mask=[True, False], anchor=[torch.ones(6), torch.zeros(5)])
    optimizer.step()
    assert torch.equal(a, torch.ones(6))
    assert torch.equal(b, start)


def test_closure_and_hooks() -> None:
    a = param(5)
    optimizer = Adam([a], lr=0.1, l1=0.01)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (a * a).sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss is not None
    assert loss.requires_grad
    assert seen == ["before", "after"]


@EVERY
def test_under_compile(cls: Any, options: dict[str, Any]) -> None:
    a, b = param(50), param(50)
    plain, compiled = cls([a], lr=0.1, l1=0.05, **options), cls([b], lr=0.1, l1=0.05, **options)
    step = torch.compile(compiled.step, backend="eager")
    for _ in range(3):
        plain.step()
        step()
    assert torch.equal(a, b)
    assert torch.equal(plain.penalty, compiled.penalty)


def test_autograd_sees_the_write() -> None:
    a = param(5)
    loss = (a * a).sum()
    SGD([a], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_group_added_later() -> None:
    a, b = param(5), param(4, seed=1)
    optimizer = Adam([a], lr=0.1, l1=0.5)
    optimizer.step()
    optimizer.add_param_group({"params": [b], "lr": 0.01})
    optimizer.step()
    assert optimizer.param_groups[1]["l1"] == 0.5
    assert (float(optimizer.state[a]["step"]), float(optimizer.state[b]["step"])) == (2, 1)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_strengths_apart_from_the_learning_rate(kind: Any) -> None:
    """decouple_lr: the proximal step has the length lr/peak, whatever the peak is; 1 before any schedule."""
    found = []
    for lr in (0.1, 0.001):
        w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.05], dtype=torch.float64))
        options = {} if kind is SGD else {"weight_decay": 0.0}
        optimizer = kind([w], lr=lr, l1=0.25, l2=0.5, decouple_lr=True, penalty="decoupled", **options)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [1.0, 0.5, 0.25].__getitem__)
        for _ in range(2):
            w.grad = torch.zeros_like(w)
            optimizer.step()
            schedule.step()
        found.append(w.tolist())
        assert optimizer.state_dict()["param_groups"][0]["peak_lr"] == lr
    x = np.array([1.0, -2.0, 0.05])
    for length in (1.0, 0.5):
        x = np.sign(x) * np.maximum(np.abs(x) - length * 0.25, 0) / (1 + 2 * length * 0.5)
    np.testing.assert_allclose(found, [x, x], rtol=1e-14)


def test_the_peak_is_the_schedulers_where_it_is_larger() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = SGD([w], lr=0.1, l1=0.5, decouple_lr=True)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=10, div_factor=4, cycle_momentum=False)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert w.item() == pytest.approx(1 - 0.5 * 0.25)
    again = copy.deepcopy(optimizer)
    again.param_groups[0]["params"][0].grad = torch.zeros_like(w)
    again.step()
    assert again.param_groups[0]["params"][0].item() == pytest.approx(1 - 2 * 0.5 * 0.25)


def test_decouple_lr_is_a_bool() -> None:
    with pytest.raises(TypeError, match="decouple_lr: 'yes' is not a bool"):
        SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, l1=0.1, decouple_lr="yes")
