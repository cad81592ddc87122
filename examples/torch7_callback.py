"""Torch7's way: a callback, once an iteration, reports the penalty and regularises the parameters in place.

Torch7 trained with plain gradients of the data loss; before or after each step a hook added up λ1·‖p‖₁ + λ2·‖p‖₂² for
the log and shrank the parameters themselves, x ← x - clip(x, -λ1, λ1) - λ2·x. Here each is one launch over all
parameters; and since `regularize_` returns the penalty of what it read, the second call alone would do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from digits import batches, load
from figures import IMAGES, NONE, PROX, save
from fused_penalty.torch import penalty, regularize_, stats
from train_digits_torch import evaluate, network, tensors


class Regularizer:
    """The callback. Its log holds the penalty before each update twice: asked for, and as `regularize_` returns it."""

    def __init__(self, model: nn.Module, l1: float, l2: float) -> None:
        self.model, self.l1, self.l2 = model, l1, l2
        self.log: list[tuple[float, float]] = []

    def regularization_penalty(self) -> float:
        """λ1·‖p‖₁ + λ2·‖p‖₂² of all parameters."""
        with torch.no_grad():
            return float(penalty(self.model, self.l1, self.l2))

    def regularize_(self) -> float:
        """Shrinks the parameters in place; the penalty of what they were."""
        return float(regularize_(self.model, self.l1, self.l2))

    def __call__(self) -> None:
        self.log.append((self.regularization_penalty(), self.regularize_()))


def train(model: nn.Module, epochs: int, callback: Callable[[], None] | None, seed: int = 0) -> None:
    """Plain SGD on the data loss; the callback runs after each step."""
    rng, digits = np.random.default_rng(seed), load()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for batch in batches(digits.train, 50, rng, augmented=False):
            x, y = tensors(batch)
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
            if callback is not None:
                callback()


def main(folder: Path = IMAGES, *, epochs: int = 200, l1: float = 1e-4, l2: float = 1e-4) -> dict[str, Any]:
    """Trains without and with the callback, draws torch7_callback.png, and returns what was found."""
    digits, found, norms = load(), {}, {}
    for name in ("no callback", "regularize_"):
        torch.manual_seed(0)
        model = network(dropout=0.0)
        callback = Regularizer(model, l1, l2) if name == "regularize_" else None
        train(model, epochs, callback)
        s = stats(model)
        norms[name] = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
        _, right = evaluate(model, digits.test)
        zeros = int(s.zeros.sum()) / sum(s.size)
        found[name] = {"abs": float(s.abs.sum()), "square": float(s.square.sum()), "zeros": zeros, "accuracy": right}
        print(
            f"{name:12s} Σ|x| {s.abs.sum():6.1f}  Σx² {s.square.sum():6.1f}  zeros {zeros:5.1%}  test {right:.1%} right"
        )
        if callback is not None:
            log = np.array(callback.log)
            np.testing.assert_allclose(log[:, 1], log[:, 0], rtol=1e-6)

    figure, (left, right_axis) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(log[:, 1], color=PROX)
    left.set(title="What the callback reports: λ1·‖p‖₁ + λ2·‖p‖₂²", xlabel="iteration", ylabel="penalty")
    bins = np.linspace(-0.505, 0.505, 102)  # one is centred at 0
    for (name, values), colour in zip(norms.items(), (NONE, PROX), strict=True):
        label = f"{name}: {found[name]['zeros']:.0%} zeros, {found[name]['accuracy']:.1%} right"
        right_axis.hist(values, bins=bins, histtype="step", linewidth=1.5, color=colour, label=label)
    right_axis.set(title="Parameters after training", xlabel="parameter", ylabel="count", yscale="log", ylim=(1, 1e5))
    right_axis.legend(loc="upper left")
    return {"log": log[:, 1].tolist(), "networks": found, "figure": save(figure, folder, "torch7_callback")}


if __name__ == "__main__":
    main()
