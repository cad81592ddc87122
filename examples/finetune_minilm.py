"""The penalty on a real language model: what MiniLM's layers weigh, how sparse it can be, and fine-tuning near it.

1. Σ|x| and Σx² of each layer, from one launch over 103 tensors.
2. Sparsify: one proximal step with growing l1, the share of zeros against the drift of sentence embeddings.
3. Fine-tune the last two layers to tell from which of scikit-learn's dataset descriptions a passage comes, with the
   pretrained weights as the anchor: the L2 penalty (L2-SP) holds the embeddings of other sentences in place, the
   proximal L1 step lets most weights stay exactly what they were.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn.functional import cross_entropy

from figures import IMAGES, L1, L2, NONE, PROX, save
from fused_penalty.torch import penalty, prox_, sums
from minilm import LAYERS, Params, embed, encode, load, look_up, pool, tokenize

SENTENCES = (
    "The train to the coast leaves at seven in the morning.",
    "She planted tomatoes and beans behind the old stone wall.",
    "The court ruled that the contract had never been valid.",
    "He tuned the violin before anyone else had arrived.",
    "Interest rates rose for the third time this year.",
    "A cold front will bring snow to the mountains tonight.",
    "The enzyme loses its shape above sixty degrees.",
    "Our team scored twice in the last five minutes.",
    "The committee postponed its decision until spring.",
    "Boil the potatoes, then mash them with butter and milk.",
    "The bridge was closed after cracks were found in a pillar.",
    "Children learn a second language faster than adults do.",
)
THRESHOLDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06)
ANCHORED = {"none": (0.0,), "l2": (0.003, 0.01, 0.03, 0.1), "l1": (0.02, 0.05, 0.1, 0.2)}
RATE = 5e-4


class Point(NamedTuple):
    """A changed model: `changed` is the share of zeros (2) or of weights that are not the pretrained ones (3)."""

    strength: float
    changed: float
    cosine: float = float("nan")  # mean, of SENTENCES' embeddings before and after
    accuracy: float = float("nan")  # share of unseen passages labelled right


def group(path: str) -> str:
    found = re.search(r"layer\.(\d)", path)
    return f"layer {found[1]}" if found else path.split(".")[0]


def weigh(params: Params) -> dict[str, tuple[float, float]]:
    """Σ|x| and Σx² of the embeddings, of each layer and of the pooler."""
    found: dict[str, tuple[float, float]] = {}
    s = sums(params)
    for path, absolute, square in zip(s.paths, s.abs.tolist(), s.square.tolist(), strict=True):
        a, b = found.get(group(path), (0.0, 0.0))
        found[group(path)] = a + absolute, b + square
    for name, (a, b) in found.items():
        print(f"{name:11s} Σ|x| {a:12,.0f}   Σx² {b:10,.0f}")
    return found


def drift(before: Tensor, params: Params, tokens: tuple[Tensor, Tensor]) -> float:
    """The mean cosine of the embeddings before and now."""
    with torch.no_grad():
        return float((before * embed(params, *tokens)).sum(-1).mean())


def sparsify(params: Params, tokens: tuple[Tensor, Tensor], thresholds: tuple[float, ...]) -> dict[str, list[Point]]:
    """One proximal step from the pretrained matrices; and the same zeros with all other weights kept."""
    before = embed(params, *tokens)
    matrices = {name: x.ndim > 1 for name, x in params.items()}
    found: dict[str, list[Point]] = {"soft": [], "kept": []}
    for threshold in thresholds:
        sparse = {name: x.clone() for name, x in params.items()}
        prox_(sparse, l1=threshold, mask=matrices)
        zeros = sum(int((sparse[name] == 0).sum()) for name, keep in matrices.items() if keep)
        share = zeros / sum(x.numel() for x in params.values() if x.ndim > 1)
        kept = {name: torch.where(sparse[name] == 0, sparse[name], x) for name, x in params.items()}
        for kind, changed in (("soft", sparse), ("kept", kept)):
            found[kind].append(Point(threshold, share, drift(before, changed, tokens)))
        print(f"l1 {threshold:5.3f}: {share:5.1%} zeros, cosine {found['soft'][-1].cosine:.4f}"
              f" (other weights kept: {found['kept'][-1].cosine:.4f})")  # fmt: skip
    return found


class Task(NamedTuple):
    """Passages as the last layer receives them, which description each is from, and which are to learn from."""

    hidden: Tensor
    mask: Tensor
    labels: Tensor
    train: np.ndarray
    test: np.ndarray


def task(params: Params, words: int = 24) -> Task:
    """Passages of scikit-learn's descriptions of its datasets; the layers below the last one run once."""
    texts: list[str] = []
    labels: list[int] = []
    for label, file in enumerate(sorted((Path(sklearn.datasets.__file__).parent / "descr").glob("*.rst"))):
        prose = re.findall(r"[A-Za-z][\w',.()-]*", file.read_text(encoding="utf-8"))
        parts = [" ".join(prose[i : i + words]) for i in range(0, len(prose) - words + 1, words)]
        texts += parts
        labels += [label] * len(parts)
    tokens, mask = tokenize(texts)
    with torch.no_grad():
        hidden = encode(params, look_up(params, tokens), mask, range(LAYERS - 1))
    order = np.random.default_rng(0).permutation(len(texts))
    half = len(texts) // 2
    return Task(hidden, mask, torch.tensor(labels), order[:half], order[half:])


def finetune(params: Params, work: Task, steps: int, *, l1: float = 0.0, l2: float = 0.0) -> tuple[Params, Point]:
    """The last layer and a linear head learn; the anchor of both penalties is where the layer started."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    head = torch.nn.Linear(384, int(work.labels.max()) + 1)
    anchor = {name: x for name, x in params.items() if f"layer.{LAYERS - 1}." in name}
    learned = {name: x.clone().requires_grad_() for name, x in anchor.items()}
    optimizer = torch.optim.Adam([*learned.values(), *head.parameters()], lr=RATE)

    def logits(index: np.ndarray) -> Tensor:
        mask = work.mask[index]
        return head(20 * pool(encode(learned, work.hidden[index], mask, [LAYERS - 1]), mask))

    for _ in range(steps):
        index = rng.choice(work.train, 16, replace=False)
        loss = cross_entropy(logits(index), work.labels[index]) + penalty(learned, l2=l2, anchor=anchor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if l1:
            prox_(learned, l1=l1, step=RATE, anchor=anchor)
    with torch.no_grad():
        right = float((logits(work.test).argmax(-1) == work.labels[work.test]).float().mean())
    tuned = {name: x.detach() for name, x in learned.items()}
    changed = sum(int((x != anchor[name]).sum()) for name, x in tuned.items()) / sum(x.numel() for x in tuned.values())
    return params | tuned, Point(l1 or l2, changed, accuracy=right)


def main(
    folder: Path = IMAGES,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    anchored: dict[str, tuple[float, ...]] = ANCHORED,
    steps: int = 40,
) -> dict[str, Any]:
    """Weighs, sparsifies, fine-tunes, draws finetune_minilm.png into the folder, and returns what was found."""
    params, tokens = load(), tokenize(SENTENCES)
    layers, sparse = weigh(params), sparsify(params, tokens, thresholds)
    work, before = task(params), embed(params, *tokens)
    tuned: dict[str, list[Point]] = {}
    for kind, strengths in anchored.items():
        for strength in strengths:
            found, point = finetune(params, work, steps, **({} if kind == "none" else {kind: strength}))
            point = point._replace(cosine=drift(before, found, tokens))
            tuned.setdefault(kind, []).append(point)
            print(f"anchored by {kind} {strength:5.3f}: {point.accuracy:.1%} right, {point.changed:.1%} of the weights"
                  f" changed, cosine of other sentences {point.cosine:.4f}")  # fmt: skip
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    figure.suptitle("MiniLM (all-MiniLM-L6-v2, 22.7 M parameters)")
    _bars(axes[0], layers)
    _sparsity(axes[1, 0], sparse)
    _anchored(axes[1, 1], tuned, len(work.test))
    return {"layers": layers, "sparse": sparse, "tuned": tuned, "figure": save(figure, folder, "finetune_minilm")}


def _bars(axes: Sequence[Axes], layers: dict[str, tuple[float, float]]) -> None:
    for k, (axis, name, colour) in enumerate(zip(axes, ("Σ|x|", "Σx²"), (L1, L2), strict=True)):
        bars = axis.bar(list(layers), [values[k] for values in layers.values()], color=colour)
        axis.bar_label(bars, [f"{values[k]:,.0f}" for values in layers.values()], fontsize=8)
        axis.set(title=f"{name} of each layer, one launch for all", ylabel=name)
        axis.tick_params(axis="x", labelsize=8)


def _sparsity(axis: Axes, sparse: dict[str, list[Point]]) -> None:
    labels = {"soft": ("proximal step: S(x, l1)", PROX), "kept": ("the same zeros, other weights kept", NONE)}
    for kind, points in sparse.items():
        label, colour = labels[kind]
        axis.plot([100 * p.changed for p in points], [p.cosine for p in points], "o-", color=colour, label=label)
    for p in sparse["soft"]:
        axis.annotate(f"{p.strength:g}", (100 * p.changed, p.cosine), xytext=(-4, -3), textcoords="offset points",
                      fontsize=8, ha="right", va="top")  # fmt: skip
    axis.set(title="Sparsified (numbers: l1)", xlabel="zeros in the weight matrices (%)")
    axis.set(ylabel="cosine of sentence embeddings, before and after", ylim=(0, 1.05), xlim=(-6, 80))
    axis.legend()


def _anchored(axis: Axes, tuned: dict[str, list[Point]], unseen: int) -> None:
    labels = {"l2": ("L2 of x - anchor, in the loss", L2, -14), "l1": ("L1 of x - anchor, proximal", L1, 8)}
    free = tuned["none"][0]
    for kind, (label, colour, below) in labels.items():
        points = [free, *tuned[kind]]
        axis.plot([p.cosine for p in points], [100 * p.accuracy for p in points], "o-", color=colour, label=label)
        for p in tuned[kind]:
            text = f"{p.strength:g}" if kind == "l2" else f"{p.strength:g} ({p.changed:.0%})"
            axis.annotate(text, (p.cosine, 100 * p.accuracy), xytext=(0, below), textcoords="offset points",
                          fontsize=8, ha="center", color=colour)  # fmt: skip
    axis.plot(free.cosine, 100 * free.accuracy, "o", color=NONE, label="no penalty")
    axis.margins(0.1, 0.15)
    axis.set_title("Fine-tuned near its anchor: strength (share of weights that changed)")
    axis.set_ylabel(f"right of {unseen} unseen passages (%)")
    axis.set(xlabel="cosine of other sentences' embeddings, before and after")
    axis.legend(loc="lower left")


if __name__ == "__main__":
    main()
