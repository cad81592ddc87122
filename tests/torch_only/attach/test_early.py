"""`handle.add_grad_()`, before the step, for what has to see the penalty's gradient; and `handle.stats()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fused_penalty.torch import attach, stats

L1, L2, LIMIT, STEPS = 0.1, 0.2, 0.5, 3
START = (1.0, -2.0, 0.5)


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))


def loss_of(w: torch.Tensor) -> torch.Tensor:
    return (w * torch.arange(1, 4)).square().sum()


def clip(w: torch.Tensor) -> None:
    torch.nn.utils.clip_grad_norm_([w], LIMIT)


def by_hand() -> torch.Tensor:
    w = parameter()
    optimizer = torch.optim.SGD([w], lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (loss_of(w) + L1 * w.abs().sum() + L2 * w.square().sum()).backward()
        clip(w)
        optimizer.step()
    return w.detach()


def plain(w: Any, optimizer: Any, handle: Any) -> None:
    optimizer.zero_grad()
    loss_of(w).backward()
    handle.add_grad_()
    clip(w)
    optimizer.step()


def with_a_closure(w: Any, optimizer: Any, handle: Any) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(w)
        loss.backward()
        handle.add_grad_()
        clip(w)
        return loss

    value = loss_of(w).detach()
    found = optimizer.step(closure)
    assert float(found.detach()) == pytest.approx(float(value + handle.penalty))  # for a line search


def after_a_step_that_was_skipped(w: Any, optimizer: Any, handle: Any) -> None:
    """As GradScaler does at an overflow."""
    loss_of(w).backward()
    handle.add_grad_()
    plain(w, optimizer, handle)


@pytest.mark.parametrize("step", [plain, with_a_closure, after_a_step_that_was_skipped])
def test_the_step_does_not_add_it_again(step: Callable[..., None]) -> None:
    w = parameter()
    optimizer = torch.optim.SGD([w], lr=0.1)
    handle = attach(optimizer, L1, L2)
    for _ in range(STEPS):
        step(w, optimizer, handle)
    torch.testing.assert_close(w.detach(), by_hand())


def test_the_step_after_it_adds_again() -> None:
    w = parameter()
    optimizer = torch.optim.SGD([w], lr=0.0)
    handle = attach(optimizer, l2=0.5)
    for call in (handle.add_grad_, lambda: None, lambda: None):
        w.grad = torch.zeros_like(w)
        call()
        optimizer.step()
        assert w.grad.tolist() == list(START)


def test_a_proximal_step_has_no_gradient() -> None:
    handle = attach(torch.optim.SGD([parameter()], lr=0.1), L1, mode="prox")
    with pytest.raises(ValueError, match=r'^mode: a penalty of mode="prox" has no gradient to add'):
        handle.add_grad_()


def test_stats_are_of_what_counts() -> None:
    w, frozen = parameter(), torch.nn.Parameter(torch.ones(2))
    anchor = [torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), torch.zeros(2)]
    handle = attach(torch.optim.SGD([w, frozen], lr=0.1), L1, mask=[True, False], anchor=anchor)
    found, expected = handle.stats(), stats([w], anchor=anchor[:1])
    assert found.size == (3,)
    assert found.zeros.tolist() == [1]
    assert all(torch.equal(a, b) for a, b in zip(found[:5], expected[:5], strict=True))
