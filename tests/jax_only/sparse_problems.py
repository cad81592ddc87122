"""Two convex problems whose optimum is sparse, and that optimum, in float64 NumPy.

Both have 6 weights that matter and 54 that do not; the loss and the penalty are what JAX trains with in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TRUE = np.array([1.0, -2.0, 1.5, 0.7, -0.9, 2.2])
ROWS, WEIGHTS = 400, 60
Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """min_w loss(w) + l1·‖w‖₁ + l2·‖w‖²."""

    features: Array
    targets: Array
    l1: float
    l2: float
    smooth: Callable[[Array, Array], tuple[float, Array]]  # (features·w, targets) -> the loss and its slopes, per row
    curvature: float  # the largest second derivative of a row's loss

    def gradient(self, w: Array) -> Array:
        return self.features.T @ self.smooth(self.features @ w, self.targets)[1] / ROWS

    def objective(self, w: Array) -> float:
        loss = self.smooth(self.features @ w, self.targets)[0]
        return float(loss + self.l1 * np.abs(w).sum() + self.l2 * (w * w).sum())

    def violation(self, w: Array) -> float:
        """How far w is from the optimality condition: |∂loss| <= l1 where w = 0, else ∂loss + l1·sign + 2·l2·w = 0."""
        g = self.gradient(w)
        at_zero = np.maximum(np.abs(g) - self.l1, 0)
        return float(np.max(np.where(w == 0, at_zero, np.abs(g + self.l1 * np.sign(w) + 2 * self.l2 * w))))

    def optimum(self) -> Array:
        """By coordinate descent: each weight in turn goes to the minimum of a parabola above the loss, plus penalty."""
        w, bound = np.zeros(WEIGHTS), self.curvature * (self.features**2).sum(axis=0) / ROWS
        for _ in range(3000):
            before = w.copy()
            for j in range(WEIGHTS):
                slopes = self.smooth(self.features @ w, self.targets)[1]
                y = bound[j] * w[j] - self.features[:, j] @ slopes / ROWS
                w[j] = np.sign(y) * max(abs(y) - self.l1, 0.0) / (bound[j] + 2 * self.l2)
            if np.max(np.abs(w - before)) < 1e-15:
                break
        assert self.violation(w) < 1e-13
        return w


def squares(z: Array, y: Array) -> tuple[float, Array]:
    return float(np.mean((z - y) ** 2) / 2), z - y


def logistic(z: Array, y: Array) -> tuple[float, Array]:
    """y is 1 or -1."""
    return float(np.mean(np.logaddexp(0, -y * z))), -y / (1 + np.exp(y * z))


def lasso() -> Problem:
    features, truth, noise = _draw()
    return Problem(features, features @ truth + 0.1 * noise, 0.05, 0.01, squares, 1.0)


def logistic_regression() -> Problem:
    features, truth, noise = _draw()
    labels = np.where(features @ truth + 0.5 * noise > 0, 1.0, -1.0)
    return Problem(features, labels, 0.03, 0.005, logistic, 0.25)


def _draw() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    truth = np.concatenate([TRUE, np.zeros(WEIGHTS - len(TRUE))])
    return rng.standard_normal((ROWS, WEIGHTS)), truth, rng.standard_normal(ROWS)
