"""`attach`: the penalty in optimizer.step(), against steps written by hand."""

from __future__ import annotations

from typing import Any

import pytest

import fused_penalty as fp

torch = pytest.importorskip("torch")

from fused_penalty.torch import add_grad_, attach, penalty
from tests.torch_only.attach.steps import L1, L2, RATE, backward, expected_step, linear


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_a_step(mode: str) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    handle = attach(optimizer, L1, L2, mode=mode)
    assert handle.penalty is None
    backward(model)
    old = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
    optimizer.step()
    for p, (before, g) in zip(model.parameters(), old, strict=True):
        torch.testing.assert_close(p.detach(), expected_step(before, g, mode))
    read = [b if mode == "grad" else b - RATE * g for b, g in old]  # prox reads what the step has left
    torch.testing.assert_close(handle.penalty, penalty(read, L1, L2))
    handle.remove()
    before = [p.detach().clone() for p in model.parameters()]
    model.zero_grad()
    backward(model)
    optimizer.step()
    for p, b in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), b - RATE * p.grad)


def test_equal_to_weight_decay() -> None:
    """l2 = wd / 2, for an optimizer whose weight decay goes through the gradient."""
    models = [linear(), linear()]
    ours = torch.optim.Adam(models[0].parameters(), lr=RATE)
    theirs = torch.optim.Adam(models[1].parameters(), lr=RATE, weight_decay=0.2)
    attach(ours, l2=0.1)
    for _ in range(3):
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            backward(model)
            optimizer.step()
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_groups_have_their_own_rates_and_strengths(mode: str) -> None:
    model = linear()
    groups = [{"params": [model.weight], "lr": 0.5, "l2": 0.3}, {"params": [model.bias], "l1": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=RATE)
    attach(optimizer, L1, L2, mode=mode)
    backward(model)
    old = [(p.detach().clone(), p.grad.clone()) for p in (model.weight, model.bias)]
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), expected_step(*old[0], mode, L1, 0.3, 0.5))
    torch.testing.assert_close(model.bias.detach(), expected_step(*old[1], mode, 0.0, L2))
    groups[0]["l2"] = 0.0  # the group of the optimizer is another dict ...
    optimizer.param_groups[0]["l2"] = -1.0  # ... and this one is looked at in every step
    with pytest.raises(ValueError, match=r"l2 at '0': the strength -1.0"):
        optimizer.step()


def test_names_and_rules() -> None:
    model = linear()
    rule = fp.by_path({"*bias": 0.0, "*": L1})
    with pytest.raises(ValueError, match=r"l1: by_path needs the parameters' names.*named_parameters"):
        attach(torch.optim.SGD(model.parameters(), lr=RATE), rule)
    optimizer = torch.optim.SGD(model.named_parameters(), lr=RATE)
    attach(optimizer, rule)
    backward(model)
    old = [(p.detach().clone(), p.grad.clone()) for p in (model.weight, model.bias)]
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), expected_step(*old[0], "grad", L1, 0.0))
    torch.testing.assert_close(model.bias.detach(), expected_step(*old[1], "grad", 0.0, 0.0))


def test_strengths_that_change() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    strength = torch.tensor(0.0)
    handle = attach(optimizer, strength, 0.0)
    for change in (lambda: strength.fill_(0.5), lambda: setattr(handle, "l2", 0.25)):
        change()
        optimizer.zero_grad()
        backward(model)
        old = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
        optimizer.step()
        for p, (before, g) in zip(model.parameters(), old, strict=True):
            torch.testing.assert_close(p.detach(), expected_step(before, g, "grad", 0.5, handle.l2))


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_parameters_without_gradient_are_skipped(mode: str) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    handle = attach(optimizer, L1, mode=mode)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()  # no gradient at all
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert torch.equal(model.bias.detach(), before[1])
    assert not torch.equal(model.weight.detach(), before[0])
    assert model.bias.grad is None
    assert handle.penalty is not None


@pytest.mark.parametrize("as_keyword", [False, True])
def test_lbfgs_minimises_loss_and_penalty(as_keyword: bool) -> None:
    """The gradients are made inside the step, several times: the closure is wrapped, and its loss has the penalty."""
    torch.manual_seed(2)
    a, y = torch.randn(20, 4, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    options = {"max_iter": 100, "tolerance_grad": 1e-12, "tolerance_change": 1e-15}
    optimizer = torch.optim.LBFGS([w], line_search_fn="strong_wolfe", **options)
    attach(optimizer, l2=0.5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (a @ w - y).square().sum()
        loss.backward()
        return loss

    first = optimizer.step(closure=closure) if as_keyword else optimizer.step(closure)
    ridge = torch.linalg.solve(a.T @ a + 0.5 * torch.eye(4, dtype=torch.float64), a.T @ y)
    torch.testing.assert_close(w.detach(), ridge)
    torch.testing.assert_close(first.detach(), y.square().sum())  # the penalty of the zeros it began with is 0


def test_maximize() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([w], lr=RATE, maximize=True)
    attach(optimizer, l2=0.5)
    w.grad = torch.tensor([1.0])
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([1 + RATE * (1 - 1)]))


def scaler_at(scale: float) -> Any:
    return torch.amp.GradScaler("cpu", init_scale=scale)


@pytest.mark.parametrize("mode", ["grad", "prox"])
@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler(mode: str, fused: bool) -> None:
    """A fused optimizer sees gradients that are still scaled; for the others they are unscaled before the step."""
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=fused)
    attach(optimizer, L1, L2, mode=mode)
    scaler = scaler_at(1024.0)
    torch.manual_seed(1)
    loss = model(torch.randn(8, 4)).square().mean()
    scaler.scale(loss).backward()
    old = [(p.detach().clone(), p.grad / 1024) for p in model.parameters()]
    if not fused:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    for p, (before, g) in zip(model.parameters(), old, strict=True):
        torch.testing.assert_close(p.detach(), expected_step(before, g, mode))


@pytest.mark.parametrize("mode", ["grad", "prox"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_grad_scaler_skips(mode: str, fused: bool) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=fused)
    attach(optimizer, L1, L2, mode=mode)
    scaler = scaler_at(1024.0)
    scaler.scale(model(torch.full((8, 4), float("inf"))).sum()).backward()
    before = [p.detach().clone() for p in model.parameters()]
    if not fused:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    for p, b in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.detach(), b)


def test_after_unscale() -> None:
    """add_grad_ by hand under GradScaler: after unscale_."""
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    scaler = scaler_at(256.0)
    torch.manual_seed(1)
    scaler.scale(model(torch.randn(8, 4)).square().mean()).backward()
    scaler.unscale_(optimizer)
    old = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
    add_grad_(model, L1, L2)
    scaler.step(optimizer)
    for p, (before, g) in zip(model.parameters(), old, strict=True):
        torch.testing.assert_close(p.detach(), expected_step(before, g, "grad"))


def test_training_with_prox_gives_exact_zeros() -> None:
    """Lasso on five features of twenty: the others become zero, not small; and with mode="grad" they do not."""
    torch.manual_seed(3)
    x = torch.randn(200, 20)
    truth = torch.zeros(20)
    truth[:5] = torch.tensor([2.0, -1.5, 1.0, 3.0, -2.5])
    y = x @ truth + 0.1 * torch.randn(200)
    zeros = {}
    for mode in ("prox", "grad"):
        w = torch.nn.Parameter(torch.randn(20) * 0.1)
        optimizer = torch.optim.SGD([w], lr=0.1)
        attach(optimizer, l1=0.3, mode=mode)
        for _ in range(300):
            optimizer.zero_grad()
            (x @ w - y).square().mean().backward()
            optimizer.step()
        zeros[mode] = (w.detach() == 0).tolist()
    assert zeros["prox"] == [False] * 5 + [True] * 15
    assert not any(zeros["grad"])


def test_towards_an_anchor() -> None:
    model = linear()
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    attach(optimizer, l2=1.0, anchor=start)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5)
            p.grad = torch.zeros_like(p)
    for _ in range(60):
        for p in model.parameters():
            p.grad.zero_()
        optimizer.step()
    for p, a in zip(model.parameters(), start, strict=True):
        torch.testing.assert_close(p.detach(), a, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_a_compiled_step(mode: str) -> None:
    torch._dynamo.reset()
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    attach(optimizer, L1, L2, mode=mode)
    step = torch.compile(lambda: optimizer.step())
    for l1 in (L1, 0.3):  # an entry of the group that changes is seen
        optimizer.param_groups[0]["l1"] = l1
        optimizer.zero_grad()
        backward(model)
        old = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
        step()
        for p, (before, g) in zip(model.parameters(), old, strict=True):
            torch.testing.assert_close(p.detach(), expected_step(before, g, mode, l1))


def test_bad_arguments() -> None:
    optimizer = torch.optim.SGD(linear().parameters(), lr=RATE)
    with pytest.raises(ValueError, match=r"mode: 'decay' is unknown\. Use \"grad\" or \"prox\""):
        attach(optimizer, mode="decay")
    with pytest.raises(TypeError, match=r"optimizer: Linear is not a torch\.optim\.Optimizer\. Give one"):
        attach(linear())
    with pytest.raises(ValueError, match=r"l1: the strength -1"):
        attach(optimizer, -1)
    optimizer.step()  # none of them left a hook
