"""L1 with Adam: which ways of adding the penalty end at the optimum of loss + penalty, and which do not.

A lasso with 6 weights that matter and 54 that do not, in float64, so that it can be seen how close each method comes.
The optimum is found by coordinate descent in NumPy. Every number of docs/l1_and_adam.md is printed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.axes import Axes

from figures import IMAGES, save
from fused_penalty.jax import penalty
from fused_penalty.optax import add_penalty_grads, proximal, proximal_adamw, proximal_sgd

ROWS, WEIGHTS, L1, L2 = 400, 60, 0.05, 0.01
TRUE = (1.0, -2.0, 1.5, 0.7, -0.9, 2.2)
RATE, SGD_RATE, MOMENTUM_RATE, MOMENTUM = 0.01, 0.1, 0.02, 0.9
FLOOR = 1e-16  # of the plot: float64 ends here
# Okabe and Ito's colours, which the colour-blind can tell apart, and a line style each
STYLES: dict[str, tuple[str, str, float]] = {
    "AdamW, euclidean prox": ("#D55E00", "-", 1.6),
    "AdamW, subgradient": ("#CC79A7", "-", 1.0),
    "SGD, prox": ("#0072B2", "--", 2.0),
    "proximal_adamw": ("#009E73", "-", 2.6),
}


@dataclass(frozen=True)
class Run:
    """A method's way, step by step, and where it ended."""

    excess: np.ndarray  # objective - optimum
    zeros: np.ndarray
    distance: float  # of the last weights from the optimum, the largest difference


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, WEIGHTS))
    return x, x[:, : len(TRUE)] @ np.array(TRUE) + 0.1 * rng.standard_normal(ROWS)


def optimum(x: np.ndarray, y: np.ndarray, sweeps: int = 1000) -> np.ndarray:
    """Coordinate descent: each weight in turn goes to its own minimum."""
    w, square = np.zeros(WEIGHTS), (x * x).mean(axis=0)
    for _ in range(sweeps):
        for j in range(WEIGHTS):
            pull = square[j] * w[j] + x[:, j] @ (y - x @ w) / ROWS
            w[j] = np.sign(pull) * max(abs(pull) - L1, 0.0) / (square[j] + 2 * L2)
    return w


def optimizers() -> dict[str, optax.GradientTransformation]:
    both = {"l1": L1, "l2": L2}
    adamw = optax.adamw(RATE, weight_decay=0.0)
    momentum = optax.sgd(MOMENTUM_RATE, MOMENTUM)
    return {
        "AdamW, euclidean prox": optax.chain(adamw, proximal(**both, learning_rate=RATE)),
        "AdamW, subgradient": optax.chain(add_penalty_grads(**both), adamw),
        "SGD, prox": proximal_sgd(SGD_RATE, **both),
        "proximal_adamw": proximal_adamw(RATE, weight_decay=0.0, **both),
        "proximal_adamw, amsgrad": proximal_adamw(RATE, weight_decay=0.0, amsgrad=True, **both),
        "momentum, prox of length lr": optax.chain(momentum, proximal(**both, learning_rate=MOMENTUM_RATE)),
        "momentum, proximal_sgd": proximal_sgd(MOMENTUM_RATE, MOMENTUM, **both),
    }


def train(optimizer: optax.GradientTransformation, x: np.ndarray, y: np.ndarray, best: np.ndarray, steps: int) -> Run:
    def loss(w: jax.Array) -> jax.Array:
        return jnp.mean((x @ w - y) ** 2) / 2

    def objective(w: jax.Array) -> jax.Array:
        return loss(w) + penalty(w, L1, L2)

    def step(carry: Any, _: Any) -> Any:
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), (objective(w), jnp.sum(w == 0))

    w = jnp.asarray(0.1 * np.random.default_rng(1).standard_normal(WEIGHTS))
    (w, _), (objectives, zeros) = jax.lax.scan(step, (w, optimizer.init(w)), None, length=steps)
    excess = np.asarray(objectives - objective(jnp.asarray(best)))
    return Run(excess, np.asarray(zeros), float(np.abs(w - best).max()))


def main(folder: Path = IMAGES, *, steps: int = 4000) -> dict[str, Any]:
    """Trains, draws l1_and_adam.png, and returns the runs."""
    x, y = data()
    best = optimum(x, y)
    zeros = int(np.sum(best == 0))
    value = np.mean((x @ best - y) ** 2) / 2 + L1 * np.abs(best).sum() + L2 * (best * best).sum()
    print(f"{'optimum':28s} objective {value:.6f}                       {zeros:2d} zeros")
    with jax.enable_x64(True):
        runs = {name: train(optimizer, x, y, best, steps) for name, optimizer in optimizers().items()}
    for name, run in runs.items():
        print(
            f"{name:28s} objective {value + run.excess[-1]:.6f} (above: {run.excess[-1]: .1e})"
            f"  {run.zeros[-1]:2d} zeros  off by {run.distance:.1e}"
        )
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 4.2), layout="constrained")
    _draw(left, {name: np.maximum(runs[name].excess, FLOOR) for name in STYLES})
    left.set(title=f"A lasso of {WEIGHTS} weights: objective above the optimum", yscale="log", ylim=(FLOOR / 3, 100))
    left.set_yticks([1, 1e-4, 1e-8, 1e-12, 1e-16])
    _label(left, "AdamW, euclidean prox", 1.3 * steps, 0.2)
    _label(left, "AdamW, subgradient", 1.3 * steps, 3e-4)
    _label(left, "SGD, prox", 60, 1e-8, "right")
    _label(left, "proximal_adamw", 1100, 1e-8)
    _draw(right, {name: runs[name].zeros for name in STYLES})
    right.hlines(zeros, 0.9, steps, color="black", linewidth=0.8, linestyle=":", zorder=0)
    right.text(1, zeros + 1, f"{zeros} at the optimum", va="bottom")
    right.set(title="Weights that are exactly zero", ylim=(-8, WEIGHTS + 2))
    _label(right, "AdamW, euclidean prox", 1.3 * steps, 7)
    _label(right, "AdamW, subgradient", 1.3 * steps, -3)
    _label(right, "SGD, prox", 18, 38, "right")
    _label(right, "proximal_adamw", 320, 38)
    return {"runs": runs, "zeros": zeros, "figure": save(figure, folder, "l1_and_adam")}


def _draw(axis: Axes, curves: dict[str, np.ndarray]) -> None:
    for name, values in curves.items():
        colour, line, width = STYLES[name]
        axis.plot(1 + np.arange(len(values)), values, color=colour, linestyle=line, linewidth=width)
    last = len(next(iter(curves.values())))
    axis.set(xlabel="step", xscale="log", xlim=(0.9, 40 * last))  # with room for the labels
    axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axis.tick_params(axis="x", which="minor", bottom=False)
    axis.spines["bottom"].set_bounds(0.9, last)


def _label(axis: Axes, name: str, x: float, y: float, side: str = "left") -> None:
    """Beside its curve, in the curve's colour."""
    text = name.replace(", ", ",\n") if name.startswith("AdamW") else name
    axis.text(x, y, text, color=STYLES[name][0], ha=side, va="center", fontsize=11, fontweight="bold")


if __name__ == "__main__":
    main()
