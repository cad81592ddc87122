"""PyTorch: the MLP of train_digits_jax.py, its loss with the penalty of the whole model in one launch.

Dropout, augmentation, strengths of their own for weights and biases, early stopping that restores the best parameters.
Each epoch prints what the loss is made of, the four terms out of one more launch (`sums`).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from digits import EarlyStopping, Epoch, Split, Strengths, batches, load
from figures import IMAGES, save, training
from fused_penalty.torch import penalty, sums

STRENGTHS = Strengths(l1w=1e-4, l1b=1e-5, l2w=1e-3, l2b=1e-4)


def network(dropout: float = 0.2) -> nn.Module:
    """64 → 128 → 64 → 10 with ReLU and dropout."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in ((64, 128), (128, 64)):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.x), torch.from_numpy(split.y).long()


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """(cross entropy, share of right answers)."""
    x, y = tensors(split)
    logits = model.eval()(x)
    return float(cross_entropy(logits, y)), float((logits.argmax(-1) == y).float().mean())


def main(folder: Path = IMAGES, *, epochs: int = 200, patience: int = 20, seed: int = 0) -> dict[str, Any]:
    """Trains, draws train_digits_torch.png into the folder, and returns what was found."""
    torch.manual_seed(seed)
    digits, rng = load(), np.random.default_rng(seed)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    l1, l2 = STRENGTHS.rules()

    stopping, history = EarlyStopping(patience, copy.deepcopy), []
    for epoch in range(epochs):
        seen = []
        model.train()
        for batch in batches(digits.train, 50, rng):
            x, y = tensors(batch)
            data = cross_entropy(model(x), y)
            optimizer.zero_grad()
            (data + penalty(model, l1, l2)).backward()
            optimizer.step()
            seen.append(data.detach())
        valid, right = evaluate(model, digits.valid)
        with torch.no_grad():
            terms = STRENGTHS.terms(sums(model))
        history.append(Epoch(float(torch.stack(seen).mean()), terms, valid, right))
        print(history[-1].line(epoch))
        if stopping.stop(epoch, valid, model.state_dict()):
            break

    model.load_state_dict(stopping.best)
    (restored, _), (test, right) = (evaluate(model, split) for split in (digits.valid, digits.test))
    print(f"best epoch {stopping.epoch} restored: test loss {test:.4f}, {right:.1%} right")
    title = f"An MLP on scikit-learn's digits, PyTorch: {right:.1%} of {len(digits.test.y):,} test images right"
    file = save(training(history, stopping.epoch, title), folder, "train_digits_torch")
    found = {"restored": restored, "test": test, "accuracy": right}
    return {"history": history, "best": stopping.epoch, **found, "figure": file}


if __name__ == "__main__":
    main()
