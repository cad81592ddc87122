"""A small model of PyTorch, and its training as it is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .twins import RATE, STEPS, naive_torch

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(16, 3, generator=GENERATOR)
Y = X @ torch.tensor([[1.0], [0.0], [-1.0]])


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def data_loss(model: Any, rows: Any = slice(None)) -> torch.Tensor:
    return (model(X[rows]) - Y[rows]).square().mean()


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=RATE)


def naive_run(
    clip: float | None = None,
    optimizer_of: Callable[[Any], torch.optim.Optimizer] = sgd,
    steps: int = STEPS,
) -> torch.nn.Module:
    """The loop as it is written by hand."""
    model = small()
    optimizer = optimizer_of(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = data_loss(model) + naive_torch(model.parameters())
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return model


def same(found: Any, expected: Any, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    for (name, p), (_, q) in zip(found.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
