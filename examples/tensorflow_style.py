"""TensorFlow's l2_loss and apply_regularization, as the course on deep learning uses them, in our terms.

    tf.nn.l2_loss(w) = ½·Σw²                 with a ½, so that its gradient is w
    l2_regularizer(β)(w) = β·½·Σw²           so that its gradient is β·w
    apply_regularization(r, weights) = Σ r(w)

Our convention has no ½ (as Keras and treex): `l2=λ` is λ·Σw² with the gradient 2·λ·w, so TensorFlow's β is λ = β/2.
The figure is the exercise of the course: which β is best?
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import fused_penalty as fp
from digits import load
from figures import IMAGES, L2, NONE, save
from fused_penalty.jax import penalty
from mlp import accuracy, init, train, weights_only


def l2_loss(x: Any) -> jax.Array:
    """tf.nn.l2_loss: ½·Σx²."""
    return penalty(x, l2=0.5)


def l1_regularizer(scale: float) -> fp.L1:
    """scale·Σ|w|."""
    return fp.L1(scale)


def l2_regularizer(scale: float) -> fp.L2:
    """scale·½·Σw²: here the ½ is."""
    return fp.L2(scale / 2)


def apply_regularization(regularizer: fp.L1L2, weights: Any) -> jax.Array:
    """The sum of the regularizer over all weights, in one launch."""
    return regularizer(weights)


def check_the_half() -> dict[str, float]:
    """Both conventions by hand and by ours, for a layer's weights."""
    layers = init(jax.random.key(0))
    weights, beta = [layer["w"] for layer in layers], 0.01
    exact = [np.asarray(w, np.float64) for w in weights]
    by_hand = beta * sum(0.5 * np.sum(w * w) for w in exact)
    ours = float(apply_regularization(l2_regularizer(beta), weights))
    one_by_one = beta * sum(float(l2_loss(w)) for w in weights)
    gradient = jax.grad(lambda w: apply_regularization(l2_regularizer(beta), w))(weights)
    np.testing.assert_allclose([ours, one_by_one], by_hand, rtol=1e-6)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, beta * w, rtol=1e-6), gradient, weights)
    print(f"β·Σ l2_loss(w), β = {beta}: by hand {by_hand:.6f}, apply_regularization {ours:.6f}, its gradient is β·w")
    print(f"the same as penalty(weights, l2={beta} / 2) = {penalty(weights, l2=beta / 2):.6f}, without the ½ in l2")
    l1 = float(apply_regularization(l1_regularizer(beta), weights))
    return {"by hand": float(by_hand), "ours": ours, "one by one": one_by_one, "l1": l1}


def main(folder: Path = IMAGES, *, steps: int = 1500, points: int = 10) -> dict[str, Any]:
    """Checks the ½, trains with each β (all at once, by vmap), and draws tensorflow_style.png."""
    checked, digits = check_the_half(), load(train=200)
    betas = jnp.logspace(-4, -1, points)
    networks = jax.vmap(lambda beta: train(digits.train, optax.sgd(0.3), steps, l2=weights_only(beta / 2)))(betas)
    right = {
        name: jax.vmap(accuracy, in_axes=(0, None))(networks, split).tolist()
        for name, split in (("training", digits.train), ("validation", digits.valid))
    }
    best = int(np.argmax(right["validation"]))
    print(f"best β {betas[best]:.2g}: {right['validation'][best]:.1%} of the validation images right")

    figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for (name, values), colour in zip(right.items(), (NONE, L2), strict=True):
        axis.plot(betas, np.array(values) * 100, "o-", color=colour, label=name)
    axis.axvline(float(betas[best]), color="black", linestyle=":", linewidth=1.2, label=f"best β = {betas[best]:.2g}")
    axis.set(xscale="log", xlabel="β of β·l2_loss(w) = β·½·Σw²,  l2 = β/2", ylabel="images right (%)")
    axis.set_title("The course's exercise: an MLP on digits, L2 of its weights")
    axis.legend(loc="lower left")
    return {"half": checked, "betas": betas.tolist(), **right, "figure": save(figure, folder, "tensorflow_style")}


if __name__ == "__main__":
    main()
