"""The steps of the proximal optimizers for one array, in float64 NumPy, from the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Step = Callable[[int, Array, Array], tuple[Array, Any]]  # (step from 0, θ, gradient) -> (z, step size of each element)


def run(step: Step, theta: Array, gradients: Sequence[Array], l1: Any, l2: Any, anchor: Any = 0.0) -> Array:
    """θ after a step for each gradient. Strengths may be functions of the step; a step size of 0 leaves z as it is."""
    theta = theta.astype(np.float64)
    for t, g in enumerate(gradients):
        z, eta = step(t, theta, g.astype(np.float64))
        a, b = (v(t) if callable(v) else v for v in (l1, l2))
        d = z - anchor
        soft = np.where(np.abs(d) > eta * a, d - np.sign(d) * eta * a, 0.0)
        theta = np.where(np.broadcast_to(eta, z.shape) == 0, z, anchor + soft / (1 + 2 * eta * b))
    return theta


def sgd(lr: Any, momentum: float = 0.0, nesterov: bool = False) -> Step:
    b: Any = 0.0

    def step(t: int, theta: Array, g: Array) -> tuple[Array, Any]:
        nonlocal b
        b = momentum * b + g
        rate = lr(t) if callable(lr) else lr
        return theta - rate * (g + momentum * b if nesterov else b), rate / (1 - momentum)

    return step


def adamw(
    lr: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0, weight_decay: float = 1e-4,
    nesterov: bool = False, amsgrad: bool = False,
) -> Step:  # fmt: skip
    m: Any = 0.0
    v: Any = 0.0
    largest: Any = 0.0

    def step(t: int, theta: Array, g: Array) -> tuple[Array, Any]:
        nonlocal m, v, largest
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        mean = m / (1 - b1 ** (t + 1))
        if nesterov:
            mean = b1 * m / (1 - b1 ** (t + 2)) + (1 - b1) * g / (1 - b1 ** (t + 1))
        square = v / (1 - b2 ** (t + 1))
        if amsgrad:
            square = largest = np.maximum(largest, square)
        size = np.sqrt(square + eps_root) + eps
        rate = lr(t) if callable(lr) else lr
        return theta - rate * (mean / size + weight_decay * theta), np.where(square == 0, 0.0, rate / size)

    return step


def adagrad(lr: Any, initial: float = 0.1, eps: float = 1e-7) -> Step:
    s: Any = initial

    def step(t: int, theta: Array, g: Array) -> tuple[Array, Any]:
        nonlocal s
        s = s + g * g
        with np.errstate(divide="ignore"):
            eta = np.where(s > 0, (lr(t) if callable(lr) else lr) / np.sqrt(s + eps), 0.0)
        return theta - eta * g, eta

    return step
