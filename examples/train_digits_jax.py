"""JAX: an MLP on handwritten digits, its loss with the penalty of the whole model in one launch.

Dropout, augmentation, strengths of their own for weights and biases, early stopping that restores the best parameters.
Each epoch prints what the loss is made of, the four terms out of one more launch (`sums`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from digits import EarlyStopping, Epoch, Split, Strengths, batches, load
from figures import IMAGES, save, training
from fused_penalty.jax import penalty, sums

STRENGTHS = Strengths(l1w=1e-4, l1b=1e-5, l2w=1e-3, l2b=1e-4)


class Net(nn.Module):
    """64 → 128 → 64 → 10 with ReLU and dropout."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.reshape(len(x), -1)
        for width in (128, 64):
            x = nn.relu(nn.Dense(width)(x))
            x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(10)(x)


def data_loss(params: Any, split: Split, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """(cross entropy, share of right answers); with dropout where there is a key."""
    logits = Net().apply(params, split.x, train=key is not None, rngs=None if key is None else {"dropout": key})
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, split.y).mean()
    return loss, (logits.argmax(-1) == split.y).mean()


def main(folder: Path = IMAGES, *, epochs: int = 200, patience: int = 20, seed: int = 0) -> dict[str, Any]:
    """Trains, draws train_digits_jax.png into the folder, and returns what was found."""
    digits, rng = load(), np.random.default_rng(seed)
    keys = jax.random.split(jax.random.key(seed), epochs + 1)
    params = Net().init(keys[-1], digits.train.x[:1], train=False)
    optimizer = optax.adam(4e-3)
    state = optimizer.init(params)
    l1, l2 = STRENGTHS.rules()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, batch: Split, key: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            data, _ = data_loss(params, batch, key)
            return data + penalty(params, l1, l2), data

        gradients, data = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, data

    evaluate = jax.jit(data_loss)
    stopping, history = EarlyStopping(patience, partial(jax.tree.map, jnp.copy)), []
    for epoch in range(epochs):
        seen = []
        for i, batch in enumerate(batches(digits.train, 50, rng)):
            params, state, data = step(params, state, batch, jax.random.fold_in(keys[epoch], i))
            seen.append(data)
        valid, right = evaluate(params, digits.valid)
        history.append(Epoch(float(jnp.stack(seen).mean()), STRENGTHS.terms(sums(params)), float(valid), float(right)))
        print(history[-1].line(epoch))
        if stopping.stop(epoch, history[-1].valid, params):
            break

    (restored, _), (test, right) = (evaluate(stopping.best, split) for split in (digits.valid, digits.test))
    print(f"best epoch {stopping.epoch} restored: test loss {test:.4f}, {right:.1%} right")
    title = f"An MLP on scikit-learn's digits, JAX: {right:.1%} of {len(digits.test.y):,} test images right"
    file = save(training(history, stopping.epoch, title), folder, "train_digits_jax")
    found = {"restored": float(restored), "test": float(test), "accuracy": float(right)}
    return {"history": history, "best": stopping.epoch, **found, "figure": file}


if __name__ == "__main__":
    main()
