"""Steps of small models with `attach`, and what they must give, written by hand."""

from __future__ import annotations

from typing import Any

import torch

from fused_penalty.torch import attach

L1, L2, RATE = 0.1, 0.05, 0.2


def linear() -> Any:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3)


def backward(model: Any) -> Any:
    torch.manual_seed(1)
    loss = model(torch.randn(8, 4)).square().mean()
    loss.backward()
    return loss


def soft(x: Any, t: float) -> Any:
    return x.sign() * (x.abs() - t).clamp(min=0)


def expected_step(p: Any, g: Any, mode: str, l1: float = L1, l2: float = L2, rate: float = RATE) -> Any:
    if mode == "grad":
        return p - rate * (g + l1 * p.sign() + 2 * l2 * p)
    return soft(p - rate * g, rate * l1) / (1 + 2 * rate * l2)


def make(l1: Any = L1, l2: Any = L2, mode: str = "grad", **group: Any) -> tuple[Any, Any, Any]:
    model = linear()
    optimizer = torch.optim.SGD([{"params": [model.weight], **group}, {"params": [model.bias]}], lr=RATE)
    return model, optimizer, attach(optimizer, l1, l2, mode=mode)


def check_a_step(optimizer: Any, mode: str = "grad", l1: Any = (L1, L1), l2: Any = (L2, L2)) -> None:
    """With these strengths of the two groups, and the penalty once."""
    params = [g["params"][0] for g in optimizer.param_groups]
    for p in params:
        p.grad = torch.linspace(-1, 1, p.numel()).reshape(p.shape)
    before = [p.detach().clone() for p in params]
    optimizer.step()
    for p, old, a, b in zip(params, before, l1, l2, strict=True):
        torch.testing.assert_close(p.detach(), expected_step(old, p.grad if mode == "prox" else base(p), mode, a, b))


def base(p: Any) -> Any:
    """The gradient before the penalty's was added."""
    return torch.linspace(-1, 1, p.numel()).reshape(p.shape)


def entries(optimizer: Any) -> list[tuple[Any, Any]]:
    return [(g.get("l1"), g.get("l2")) for g in optimizer.param_groups]
