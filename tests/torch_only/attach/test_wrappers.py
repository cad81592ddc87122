"""`attach` and optimizers that wrap others or override `step`: stand-ins that behave as the real classes do."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fused_penalty.torch import attach
from tests.torch_only.attach.steps import L1, L2, RATE, backward, expected_step, linear


class TimmLookahead(torch.optim.Optimizer):
    """timm 1.0: has the dicts of hooks, never runs them."""

    def __init__(self, base_optimizer: Any) -> None:  # does not call super().__init__, as the original
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()
        self._base_optimizer = base_optimizer
        self.param_groups = base_optimizer.param_groups
        self.defaults = base_optimizer.defaults
        self.state = defaultdict(dict)

    def step(self, closure: Any = None) -> Any:
        return self._base_optimizer.step(closure)


class OlderLookahead(torch.optim.Optimizer):
    """torch_optimizer 0.3: no hooks at all."""

    def __init__(self, base_optimizer: Any) -> None:
        self.base_optimizer = base_optimizer
        self.param_groups = base_optimizer.param_groups
        self.state = defaultdict(dict)

    def step(self, closure: Any = None) -> Any:
        return self.base_optimizer.step(closure)


class AcceleratedOptimizer(torch.optim.Optimizer):
    """accelerate: properties that lead to the inner optimizer; a step that may skip it."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)
    defaults = property(lambda self: self.optimizer.defaults)

    def step(self, closure: Any = None) -> None:
        self.optimizer.step(closure)


class LightningOptimizer:
    """Lightning: no Optimizer, but of a class made at run time that is one; attributes come from the inner one."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.__class__ = type("Lightning" + type(optimizer).__name__, (type(self), type(optimizer)), {})

    optimizer = property(lambda self: self._optimizer)

    def step(self, closure: Any = None) -> Any:
        return self._optimizer.step(closure)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


class ScheduleFreeWrapper:
    """schedulefree: no Optimizer."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def step(self, closure: Any = None) -> Any:
        return self.base.step()


class Subclass(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def check_one_step(model: Any, optimizer: Any, mode: str) -> None:
    """One step of all parameters, with the penalty applied once."""
    optimizer.param_groups[0]["params"][0].grad = None
    model.zero_grad()
    backward(model)
    old = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
    optimizer.step()
    for p, (before, g) in zip(model.parameters(), old, strict=True):
        torch.testing.assert_close(p.detach(), expected_step(before, g, mode))


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (TimmLookahead, r"the step of TimmLookahead never runs hooks\..*attach\(optimizer\._base_optimizer, \.\.\.\)"),
        (OlderLookahead, r"the step of OlderLookahead never runs hooks\..*attach\(optimizer\.base_optimizer, \.\.\.\)"),
        (
            ScheduleFreeWrapper,
            r"ScheduleFreeWrapper is not a torch\.optim\.Optimizer\..*attach\(optimizer\.base, \.\.\.\)",
        ),
    ],
)
def test_a_wrapper_that_never_runs_hooks_is_refused(wrapper: Any, message: str) -> None:
    model = linear()
    inner = torch.optim.SGD(model.parameters(), lr=RATE)
    wrapped = wrapper(inner)
    with pytest.raises(TypeError, match=rf"^optimizer: {message}"):
        attach(wrapped, L1, L2)
    attach(inner, L1, L2)  # what the message says
    check_one_step(model, wrapped if wrapper is not ScheduleFreeWrapper else inner, "grad")


def test_refused_even_where_the_base_class_is_hooked() -> None:
    """torch marks the class of an instance; an instance of Optimizer itself marks a base class of all wrappers."""
    before = vars(torch.optim.Optimizer)["step"]
    try:
        torch.optim.Optimizer([torch.zeros(1)], {})
        with pytest.raises(TypeError, match="never runs hooks"):
            attach(TimmLookahead(torch.optim.SGD(linear().parameters(), lr=RATE)), L1)
    finally:
        torch.optim.Optimizer.step = before


def test_a_step_that_nobody_has_hooked() -> None:
    class Bare(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            self.param_groups = [{"params": list(params)}]

        def step(self, closure: Any = None) -> None:
            raise AssertionError

    with pytest.raises(TypeError, match=r"the step of Bare never runs hooks\. Use one whose class calls"):
        attach(Bare(linear().parameters()), L1)


@pytest.mark.parametrize("mode", ["grad", "prox"])
@pytest.mark.parametrize("wrapper", [AcceleratedOptimizer, LightningOptimizer])
def test_wrappers_that_work_by_their_inner_optimizer(wrapper: Any, mode: str) -> None:
    model = linear()
    inner = torch.optim.SGD(model.parameters(), lr=RATE)
    wrapped = wrapper(inner)
    handle = attach(wrapped, L1, L2, mode=mode)
    assert inner.fused_penalty is handle
    check_one_step(model, wrapped, mode)
    for again in (wrapped, inner):
        with pytest.raises(ValueError, match="has a penalty already"):
            attach(again, L1)
    handle.remove()
    attach(wrapped, L1, L2, mode=mode)
    check_one_step(model, wrapped, mode)


def test_accelerated_around_one_that_never_runs_hooks() -> None:
    lookahead = TimmLookahead(torch.optim.SGD(linear().parameters(), lr=RATE))
    with pytest.raises(TypeError, match="the step of TimmLookahead never runs hooks"):
        attach(AcceleratedOptimizer(lookahead), L1)


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_a_step_patched_by_a_scheduler(mode: str) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    assert "step" in vars(optimizer)
    attach(optimizer, L1, L2, mode=mode)
    check_one_step(model, optimizer, mode)


@pytest.mark.parametrize("mode", ["grad", "prox"])
@pytest.mark.parametrize("with_closure", [False, True])
def test_a_subclass_that_calls_super_has_the_penalty_once(mode: str, with_closure: bool) -> None:
    """torch hooks the steps of both classes, once it has seen an instance of each, and runs our hooks twice."""
    torch.optim.SGD([torch.zeros(1)], lr=RATE)
    model = linear()
    optimizer = Subclass(model.parameters(), lr=RATE)
    attach(optimizer, L1, L2, mode=mode)
    if not with_closure:
        check_one_step(model, optimizer, mode)
        return
    old = [p.detach().clone() for p in model.parameters()]
    grads = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = backward(model)
        grads.extend(p.grad.clone() for p in model.parameters())
        return loss

    optimizer.step(closure)
    for p, before, g in zip(model.parameters(), old, grads, strict=True):
        torch.testing.assert_close(p.detach(), expected_step(before, g, mode))


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_after_a_step_that_raised(mode: str) -> None:
    """The penalty comes back with the next step, whatever the failed one has left behind."""
    model = linear()
    optimizer = Subclass(model.parameters(), lr=RATE)
    attach(optimizer, L1, L2, mode=mode)

    def fails() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(fails)
    check_one_step(model, optimizer, mode)
