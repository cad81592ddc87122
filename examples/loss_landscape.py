"""The landscape of two parameters with L2 and L1, and how gradient and proximal descent walk in it.

A regression on two of the measurements of scikit-learn's diabetes data, the data of the paper on least angle regression
(Efron et al., 2004). The contours are one call: `vmap` over the grid, and the penalty still launches once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from sklearn.datasets import load_diabetes

from figures import IMAGES, L1, L2, NONE, PROX, save
from fused_penalty.jax import penalty, prox

FEATURES = "s4", "s2"  # of blood serum: two that go together, so that the valley lies across
RATE, START = 0.25, (-0.35, 0.55)
STRENGTH = {"L1": 0.25, "L2": 0.4}


def data() -> tuple[jax.Array, jax.Array]:
    """Two measurements and the progression of the disease, of mean 0 and variance 1."""
    found = load_diabetes()
    x = found.data[:, [found.feature_names.index(name) for name in FEATURES]]
    return tuple(jnp.asarray((v - v.mean(0)) / v.std(0), jnp.float32) for v in (x, found.target))  # type: ignore[return-value]


def descend(step: Callable[[jax.Array], jax.Array], steps: int) -> np.ndarray:
    """The path (steps + 1, 2) from START."""
    start = jnp.array(START)
    _, path = jax.lax.scan(lambda w, _: (step(w),) * 2, start, length=steps)
    return np.vstack([start, path])


def main(folder: Path = IMAGES, *, steps: int = 60, grid: int = 121) -> dict[str, Any]:
    """Walks, draws loss_landscape.png, and returns where each walk ended."""
    x, y = data()
    l1, l2 = STRENGTH["L1"], STRENGTH["L2"]

    def loss(w: jax.Array, l1: float = 0.0, l2: float = 0.0) -> jax.Array:
        return jnp.mean((x @ w - y) ** 2) + penalty(w, l1, l2)

    def gradient_step(l1: float = 0.0, l2: float = 0.0) -> Callable[[jax.Array], jax.Array]:
        return lambda w: w - RATE * jax.grad(loss)(w, l1, l2)

    paths = {
        "no penalty": descend(gradient_step(), steps),
        "L2": descend(gradient_step(l2=l2), steps),
        "L1, gradient": descend(gradient_step(l1=l1), steps),
        "L1, proximal": descend(lambda w: prox(gradient_step()(w), l1, step=RATE), steps),
    }
    for name, path in paths.items():
        print(f"{name:13s} ends at ({path[-1, 0]: .6f}, {path[-1, 1]: .9f})")

    figure, axes = plt.subplots(2, 2, figsize=(11, 9.5), layout="constrained")
    figure.suptitle("Two parameters of a regression on the diabetes data: contours of the loss, and the way down")
    panels = (("no penalty", {}, NONE), (f"L2, λ = {l2}", {"l2": l2}, L2), (f"L1, λ = {l1}", {"l1": l1}, L1))
    for axis, (title, strength, colour) in zip(axes.flat, panels, strict=False):
        _contours(axis, jax.vmap(lambda w, s=strength: loss(w, **s)), grid, colour)  # type: ignore[misc]
        axis.set_title(title)
        axis.plot(*paths["no penalty"][-1], "*", color="black", markersize=12, label="minimum of the data loss")
    _path(axes[0, 0], paths["no penalty"], "gradient descent", "black")
    _path(axes[0, 1], paths["L2"], "gradient descent", "black")
    _path(axes[1, 0], paths["L1, gradient"], "gradient descent", "black")
    _path(axes[1, 0], paths["L1, proximal"], "proximal descent", PROX)
    for axis in axes.flat[:3]:
        axis.legend(loc="lower left", frameon=True, framealpha=0.9, fontsize=9)
    _approach(axes[1, 1], paths)
    ends = {name: path[-1].tolist() for name, path in paths.items()}
    return {"ends": ends, "figure": save(figure, folder, "loss_landscape")}


def _contours(axis: Axes, loss: Callable[[jax.Array], jax.Array], grid: int, colour: str) -> None:
    first, second = jnp.linspace(-0.5, 1, grid), jnp.linspace(-0.8, 0.7, grid)
    points = jnp.stack(jnp.meshgrid(first, second), axis=-1)
    values = loss(points.reshape(-1, 2)).reshape(grid, grid)
    low = float(values.min())
    levels = low + (float(values.max()) - low) * np.linspace(0.03, 1, 14) ** 2
    axis.contour(first, second, values, levels=levels, colors=colour, linewidths=0.8, alpha=0.8)
    for line in (axis.axhline, axis.axvline):
        line(0, color="black", linewidth=0.6, alpha=0.5)
    axis.set(xlabel=f"weight of {FEATURES[0]}", ylabel=f"weight of {FEATURES[1]}", aspect="equal")


def _path(axis: Axes, path: np.ndarray, label: str, colour: str) -> None:
    axis.plot(*path.T, "o-", color=colour, markersize=3.5, linewidth=1.2, label=label)


def _approach(axis: Axes, paths: dict[str, np.ndarray]) -> None:
    """The second weight step by step: it swings around zero, or lands on it."""
    for name, colour in (("L2", L2), ("L1, gradient", "black"), ("L1, proximal", PROX)):
        axis.plot(paths[name][:, 1], "o-", color=colour, markersize=3, linewidth=1, label=name)
    axis.axhline(0, color="black", linewidth=0.6, alpha=0.5)
    axis.set(title=f"The weight of {FEATURES[1]}, step by step", xlabel="step", ylabel=f"weight of {FEATURES[1]}")
    axis.legend()


if __name__ == "__main__":
    main()
