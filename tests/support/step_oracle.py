"""The optimizers' steps with the penalty in them, in NumPy and float64, one step at a time.

Written from torch.optim's documentation and, for the proximal step, arXiv 2007.07484; not from our kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray


def soft(z: Array, limit: Array | float) -> Array:
    return np.sign(z) * np.maximum(np.abs(z) - limit, 0)


@dataclass
class Oracle:
    """One parameter and its state."""

    x: Array
    anchor: Array | float = 0.0
    lr: float = 0.1
    l1: float = 0.0
    l2: float = 0.0
    penalty: str = "prox"
    maximize: bool = False
    weight_decay: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    t: int = 0

    def gradient(self, g: Array) -> Array:
        g = -g if self.maximize else g
        if self.penalty == "grad":
            d = self.x - self.anchor
            g = g + self.l1 * np.sign(d) + 2 * self.l2 * d
        return g

    def pull(self, z: Array, length: Array | float) -> None:
        d = z - self.anchor
        if self.penalty != "grad" and (self.l1 or self.l2):
            d = soft(d, length * self.l1) / (1 + 2 * length * self.l2)
        self.x = self.anchor + d

    def value(self) -> float:
        d = self.x - self.anchor
        return float(self.l1 * np.abs(d).sum() + self.l2 * (d * d).sum())

    def sgd(self, g: Array, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False) -> None:
        u = self.gradient(g) + self.weight_decay * self.x
        if momentum:
            first = "b" not in self.state
            b = self.state["b"] = u if first else momentum * self.state["b"] + (1 - dampening) * u
            u = u + momentum * b if nesterov else b
        # where b has settled for a constant gradient, the step is this much longer
        reach = (1 - dampening) / (1 - momentum) if momentum and self.penalty == "prox" else 1.0
        self.pull(self.x - self.lr * u, self.lr * reach)

    def adam(
        self, g: Array, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, amsgrad: bool = False,
        decoupled: bool = False,
    ) -> None:  # fmt: skip
        self.t += 1
        u = self.gradient(g) + (0.0 if decoupled else self.weight_decay) * self.x
        m = self.state["m"] = betas[0] * self.state.get("m", 0.0) + (1 - betas[0]) * u
        v = self.state["v"] = betas[1] * self.state.get("v", 0.0) + (1 - betas[1]) * u * u
        if amsgrad:
            v = self.state["max"] = np.maximum(self.state.get("max", 0.0), v)
        metric = np.sqrt(v / (1 - betas[1] ** self.t)) + eps
        z = self.x * (1 - self.lr * self.weight_decay * decoupled)
        z = z - self.lr * m / (1 - betas[0] ** self.t) / metric
        self.pull(z, self.lr / metric if self.penalty == "prox" else self.lr)
