"""Where the steps with a penalty end: at the optimum that theory names, with its zeros.

The optimum comes from coordinate descent in NumPy, and is checked by its own condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fused_penalty.torch as fp
from fused_penalty.torch.optim import SGD, Adam, AdamW

pytestmark = pytest.mark.usefixtures("one_thread")

N, D = 200, 30
L1, L2 = 0.05, 0.01
STEPS = 2500


def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((N, D))
    true = np.zeros(D)
    true[:6] = [1.0, -2.0, 1.5, 0.7, -0.9, 2.2]
    return a, a @ true + 0.1 * rng.standard_normal(N)


A, Y = problem()


def lasso() -> np.ndarray:
    """argmin |Aw - y|²/2n + l1·|w| + l2·w², coordinate by coordinate."""
    w = np.zeros(D)
    norms = (A * A).sum(0) / N
    for _ in range(300):
        for j in range(D):
            rho = A[:, j] @ (Y - A @ w + A[:, j] * w[j]) / N
            w[j] = np.sign(rho) * max(abs(rho) - L1, 0) / (norms[j] + 2 * L2)
    return w


def logistic_gradient(w: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return A.T @ (1 / (1 + np.exp(-A @ w)) - labels) / N


def logistic(labels: np.ndarray) -> np.ndarray:
    """The same for logistic regression, by proximal gradient descent with a step below 1 / Lipschitz."""
    w, step = np.zeros(D), 1 / (0.25 * np.linalg.eigvalsh(A.T @ A / N).max())
    for _ in range(20_000):
        z = w - step * logistic_gradient(w, labels)
        w = np.sign(z) * np.maximum(np.abs(z) - step * L1, 0) / (1 + 2 * step * L2)
    return w


@pytest.fixture(scope="module")
def problems() -> dict[str, tuple[Any, np.ndarray]]:
    """The loss in torch and the optimum."""
    a, y = torch.from_numpy(A), torch.from_numpy(Y)
    labels = (Y > 0).astype(np.float64)
    target = torch.from_numpy(labels)
    return {
        "lasso": (lambda w: ((a @ w - y) ** 2).mean() / 2, lasso()),
        "logistic": (
            lambda w: torch.nn.functional.binary_cross_entropy_with_logits(a @ w, target),
            logistic(labels),
        ),
    }


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "SGD": (SGD, {"lr": 0.5}),
    "momentum": (SGD, {"lr": 0.1, "momentum": 0.9}),
    "Adam": (Adam, {"lr": 0.02}),
    "AdamW": (AdamW, {"lr": 0.02, "weight_decay": 0.0}),
    "amsgrad": (AdamW, {"lr": 0.02, "weight_decay": 0.0, "amsgrad": True}),
}


@pytest.mark.parametrize("task", ["lasso", "logistic"])
@pytest.mark.parametrize("case", CASES)
def test_reaches_the_optimum(problems: Any, task: str, case: str) -> None:
    loss, optimum = problems[task]
    cls, options = CASES[case]
    w = torch.nn.Parameter(torch.randn(D, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1)
    optimizer = cls([w], l1=L1, l2=L2, **options)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()
    best = torch.from_numpy(optimum)

    def objective(x: torch.Tensor) -> float:
        return float(loss(x) + fp.penalty([x], L1, L2))

    assert ((w == 0) == (best == 0)).all()
    assert objective(w.detach()) - objective(best) < 1e-8
    assert int(optimizer.summary.zeros) == int((best == 0).sum())


def test_the_optimum_is_one() -> None:
    """Where a weight is zero, the loss's gradient is at most l1; elsewhere it cancels the penalty's."""
    w = lasso()
    gradient = A.T @ (A @ w - Y) / N + 2 * L2 * w
    assert (np.abs(gradient[w == 0]) <= L1).all()
    np.testing.assert_allclose(gradient[w != 0], -L1 * np.sign(w[w != 0]), atol=1e-12)
    assert 0 < (w == 0).sum() < D


def test_the_euclidean_step_after_adam_ends_elsewhere(problems: Any) -> None:
    """Why the metric matters: with penalty="decoupled" Adam ends at another point, without most of the zeros."""
    loss, optimum = problems["lasso"]
    w = torch.nn.Parameter(torch.full((D,), 0.1, dtype=torch.float64))
    optimizer = AdamW([w], lr=0.01, weight_decay=0.0, l1=L1, l2=L2, penalty="decoupled")
    for _ in range(2000):
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()
    assert int((w == 0).sum()) < int((optimum == 0).sum()) / 2
