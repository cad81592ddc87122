"""How the examples' figures look, where they go, and the one that two examples draw."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from digits import Epoch

IMAGES = Path(__file__).parent.parent / "docs" / "images"
COLOURS = {"data": "#c9d1da", "l1w": "#1b7f5c", "l1b": "#8fd0b5", "l2w": "#c0392b", "l2b": "#eeb0a6"}
LABELS = {
    "data": "data loss",
    "l1w": "L1 of weights",
    "l1b": "L1 of biases",
    "l2w": "L2 of weights",
    "l2b": "L2 of biases",
}
NONE, L1, L2, PROX = "#5d6d7e", "#1b7f5c", "#c0392b", "#7d3c98"

plt.switch_backend("Agg")  # no display is needed
plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11, "font.size": 10}
plt.rcParams |= {"legend.frameon": False, "figure.dpi": 120, "savefig.bbox": "tight"}


def save(figure: plt.Figure, folder: Path, name: str) -> Path:
    """Writes folder/name.png and closes the figure."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    figure.savefig(file)
    plt.close(figure)
    return file


def training(history: list[Epoch], best: int, title: str) -> plt.Figure:
    """What the loss is made of, and where training stopped."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    figure.suptitle(title)
    _terms(left, history)
    epochs = np.arange(len(history))
    right.plot(epochs, [e.data for e in history], color=NONE, label="training (dropout, augmented)")
    right.plot(epochs, [e.valid for e in history], color=L2, label="validation")
    right.plot(best, history[best].valid, "o", color="black", markersize=5, label=f"best epoch, {best}, restored")
    right.set(title="Data loss", xlabel="epoch", ylabel="cross entropy (nats)", yscale="log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("")
    right.legend()
    return figure


def _terms(axis: Axes, history: list[Epoch]) -> None:
    names = ["data", *history[0].terms]
    values = np.array([[e.data, *e.terms.values()] for e in history]).T
    colours = [COLOURS[n] for n in names]
    labels = [f"{LABELS[n]} (last: {v[-1]:.2g})" for n, v in zip(names, values, strict=True)]
    axis.stackplot(np.arange(len(history)), values, colors=colours, labels=labels)
    axis.set(title="Loss = data + L1 and L2 of weights and biases", xlabel="epoch", ylabel="loss (stacked)")
    axis.set_xlim(0, max(len(history) - 1, 1))
    axis.set_ylim(0, 1.05 * np.median(values.sum(axis=0)) * 2)
    handles, texts = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], texts[::-1])  # in the order of the stack, from the top
