"""The penalty on a real language model: what MiniLM's layers weigh, how sparse it can be, and fine-tuning near it.

1. Σ|x| and Σx² of each layer, from one launch over 103 tensors.
2. Sparsify: one proximal step with growing l1, the share of zeros against the drift of sentence embeddings.
3. Fine-tune the last two layers to tell from which of scikit-learn's dataset descriptions a passage comes, with the
   pretrained weights as the anchor: the L2 penalty (L2-SP) holds the embeddings of other sentences in place, the
   proximal L1 step lets most weights stay exactly what they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import torch
from figures import IMAGES, L1, L2, NONE, PROX, save
from matplotlib.axes import Axes
from minilm import LAYERS, Params, embed, encode, load, look_up, pool, tokenize
from torch import Tensor
from torch.nn.functional import cross_entropy

from fused_penalty.torch import penalty, prox_, sums

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
ANCHORED_L2, ANCHORED_L1 = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0), (0.02, 0.05, 0.1, 0.2)
RATE = 2e-4


class Point(NamedTuple):
    """A changed model: `changed` is the share of zeros (2) or of weights that are not the pretrained ones (3)."""

    strength: float
    changed: float
    cosine: float  # mean, of SENTENCES' embeddings before and after
    accuracy: float = float("nan")


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


def finetune(params: Params, work: Task, steps: int, *, l1: float = 0.0, l2: float = 0.0) -> tuple[Params, float, float]:
    """(parameters, share of the layer's weights that changed, share of unseen passages labelled right): the last layer and
    a linear head learn; the anchor of both penalties is where the layer started."""
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
    return params | tuned, changed, right
