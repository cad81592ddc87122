"""What L1 and L2 do to weights: one network, trained without a penalty, with L1, with L2, and with proximal L1.

First the two update rules are checked: one SGD step with the penalty alone is w - α·λ·sign(w) for L1 and w - α·2λ·w
for L2, as the formulas of textbooks say (with a ½ in front of the L2 term it would be w - α·λ·w).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from digits import load
from figures import IMAGES, L1, L2, NONE, PROX, save
from fused_penalty.jax import penalty
from fused_penalty.optax import proximal
from mlp import accuracy, train, weights_only

RATE = 0.1
BINS = np.linspace(-1.01, 1.01, 102)  # one is centred at 0
NEAR = 1e-3  # a weight below this is near zero
L1_STRENGTH, L2_STRENGTH = 5e-4, 2e-3


def check_update_rules() -> dict[str, float]:
    """The largest difference between one SGD step with the penalty and the rule."""
    w = jax.random.normal(jax.random.key(1), (64, 32))
    rate, strength = 0.1, 0.01
    rules = {
        "L1: w - α·λ·sign(w)": (penalty_step(w, rate, l1=strength), w - rate * strength * jnp.sign(w)),
        "L2: w - α·2λ·w": (penalty_step(w, rate, l2=strength), w - rate * 2 * strength * w),
    }
    found = {}
    for rule, (step, expected) in rules.items():
        np.testing.assert_allclose(step, expected, rtol=1e-6)
        found[rule] = float(jnp.abs(step - expected).max())
        print(f"{rule}: largest difference {found[rule]:.1e}")
    return found


def penalty_step(w: jax.Array, rate: float, **strength: float) -> jax.Array:
    """One SGD step on the penalty alone."""
    optimizer = optax.sgd(rate)
    updates, _ = optimizer.update(jax.grad(penalty)(w, **strength), optimizer.init(w))
    return optax.apply_updates(w, updates)


def main(folder: Path = IMAGES, *, steps: int = 4000) -> dict[str, Any]:
    """Checks the rules, trains, draws weight_histograms.png, and returns what was found."""
    rules, digits = check_update_rules(), load()
    l1, l2 = weights_only(L1_STRENGTH), weights_only(L2_STRENGTH)
    sgd = optax.sgd(RATE)
    to_zero = optax.chain(sgd, proximal(l1, learning_rate=RATE))
    networks = {
        "no penalty": (NONE, train(digits.train, sgd, steps)),
        "L2": (L2, train(digits.train, sgd, steps, l2=l2)),
        "L1": (L1, train(digits.train, sgd, steps, l1=l1)),
        "L1, proximal": (PROX, train(digits.train, to_zero, steps)),
    }
    shares: dict[str, Any] = {}
    figure, axes = plt.subplots(1, 4, figsize=(14, 4.2), sharex=True, sharey=True, layout="constrained")
    figure.suptitle("Weights of an MLP on scikit-learn's digits, trained from one start")
    for axis, (name, (colour, params)) in zip(axes, networks.items(), strict=True):
        weights = np.concatenate([np.ravel(layer["w"]) for layer in params])
        right = float(accuracy(params, digits.test))
        shares[name] = found = {
            "near zero": float(np.mean(np.abs(weights) < NEAR)),
            "zero": float(np.mean(weights == 0)),
            "accuracy": right,
        }
        text = f"|w| < {NEAR:g}: {found['near zero']:.1%}\nw = 0: {found['zero']:.1%}"
        print(f"{name}:", text.replace("\n", ", "), f"({right:.1%} right)")
        axis.hist(weights, bins=BINS, color=colour)
        axis.set(title=f"{name}\ntest {right:.1%} right", xlabel="weight", yscale="log")
        axis.text(0.03, 0.97, text, transform=axis.transAxes, va="top", fontsize=9)
    axes[0].set(
        ylabel=f"weights (of {weights.size:,})", xlim=(-1, 1), xticks=(-0.8, -0.4, 0, 0.4, 0.8), ylim=(0.7, 3e4)
    )
    return {"rules": rules, "networks": shares, "figure": save(figure, folder, "weight_histograms")}


if __name__ == "__main__":
    main()
