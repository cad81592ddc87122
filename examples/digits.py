"""What the training examples share: scikit-learn's digits, augmentation, a penalty's four terms, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fused_penalty as fp


class Split(NamedTuple):
    """Images (n, 8, 8) in 0 … 1 and their digits."""

    x: np.ndarray
    y: np.ndarray


class Digits(NamedTuple):
    train: Split
    valid: Split
    test: Split


def load(train: int = 400) -> Digits:
    """1,797 digits: few to train with, so that regularisation shows, 400 to stop by, the rest to test with."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8).astype(np.float32)
    y = y.astype(np.int32)
    x, rest_x, y, rest_y = train_test_split(x, y, train_size=train, stratify=y, random_state=0)
    valid_x, test_x, valid_y, test_y = train_test_split(rest_x, rest_y, train_size=400, stratify=rest_y, random_state=0)
    return Digits(Split(x, y), Split(valid_x, valid_y), Split(test_x, test_y))


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image shifted by up to half a pixel, scaled by up to 10 % and rotated by up to 10°, about its centre."""
    centre = (np.array(images.shape[1:]) - 1) / 2
    found = np.empty_like(images)
    for i, image in enumerate(images):
        angle, scale = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(0.9, 1.1)
        c, s = np.cos(angle) / scale, np.sin(angle) / scale
        matrix = np.array([[c, s], [-s, c]])  # from a pixel of the result to the one of the image
        shift = rng.uniform(-0.5, 0.5, size=2)
        affine_transform(image, matrix, centre - matrix @ (centre + shift), output=found[i], order=1)
    return found


def batches(split: Split, size: int, rng: np.random.Generator, *, augmented: bool = True) -> Iterator[Split]:
    """The images in a new order, in batches of equal size."""
    order = rng.permutation(len(split.y))
    for start in range(0, len(order) - size + 1, size):
        index = order[start : start + size]
        yield Split(augment(split.x[index], rng) if augmented else split.x[index], split.y[index])


class Strengths(NamedTuple):
    """A penalty with strengths of its own for weights and for biases."""

    l1w: float
    l1b: float
    l2w: float
    l2b: float

    def rules(self) -> tuple[Any, Any]:
        """(l1, l2) for `penalty`."""
        return fp.by_path({"*bias": self.l1b, "*": self.l1w}), fp.by_path({"*bias": self.l2b, "*": self.l2w})

    def terms(self, sums: Any) -> dict[str, float]:
        """The four terms out of `fused_penalty`'s sums, that is out of one launch."""
        found = dict.fromkeys(self._fields, 0.0)
        for path, absolute, square in zip(sums.paths, sums.abs, sums.square, strict=True):
            kind = "b" if path.endswith("bias") else "w"
            found["l1" + kind] += getattr(self, "l1" + kind) * float(absolute)
            found["l2" + kind] += getattr(self, "l2" + kind) * float(square)
        return found


class Epoch(NamedTuple):
    """What one epoch gave: the loss is data + Σ terms."""

    data: float
    terms: dict[str, float]
    valid: float
    accuracy: float

    def line(self, number: int) -> str:
        """loss = data + l1w + l1b + l2w + l2b, each as its own number."""
        parts = " + ".join(f"{name} {value:.4f}" for name, value in {"data": self.data, **self.terms}.items())
        loss = self.data + sum(self.terms.values())
        return f"epoch {number:3d}  loss {loss:.4f} = {parts} | valid {self.valid:.4f}, {self.accuracy:.1%} right"


class EarlyStopping:
    """Keeps the best parameters, and says stop when the loss has not improved for `patience` epochs.

    `copy` makes what is kept independent of further training.
    """

    def __init__(self, patience: int, copy: Callable[[Any], Any]) -> None:
        self._patience, self._copy = patience, copy
        self.loss, self.epoch, self.best = float("inf"), -1, None

    def stop(self, epoch: int, loss: float, params: Any) -> bool:
        if loss < self.loss:
            self.loss, self.epoch, self.best = loss, epoch, self._copy(params)
        return epoch - self.epoch >= self._patience
