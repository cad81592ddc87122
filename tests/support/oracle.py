"""The float64 truth, from NumPy and math.fsum alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def exact_sum(values: np.ndarray) -> float:
    """The correctly rounded sum; inf and NaN as IEEE addition gives them."""
    flat = values.astype(np.float64).ravel()
    if not np.isfinite(flat).all():
        with np.errstate(invalid="ignore"):
            return float(np.sum(flat))
    return math.fsum(flat)


def sums(leaf: np.ndarray, anchor: np.ndarray | None = None) -> tuple[float, float]:
    """(Σ|d|, Σd²), d = x - anchor. The square of a float32 is exact in float64."""
    d = displacement(leaf, anchor)
    with np.errstate(over="ignore"):
        return exact_sum(np.abs(d)), exact_sum(d * d)


def displacement(leaf: np.ndarray, anchor: np.ndarray | None = None) -> np.ndarray:
    d = leaf.astype(np.float64)
    return d if anchor is None else d - anchor.astype(np.float64)


def term(strength: float, value: float) -> float:
    return 0.0 if strength == 0 else strength * value


def penalty(
    leaves: Sequence[np.ndarray],
    l1: Sequence[float],
    l2: Sequence[float],
    anchors: Sequence[np.ndarray] | None = None,
) -> float:
    pairs = [sums(x, None if anchors is None else anchors[i]) for i, x in enumerate(leaves)]
    terms = [term(a, s) for a, (s, _) in zip(l1, pairs, strict=True)]
    terms += [term(b, q) for b, (_, q) in zip(l2, pairs, strict=True)]
    return exact_sum(np.array(terms))


def gradient(leaf: np.ndarray, l1: float, l2: float, anchor: np.ndarray | None = None) -> np.ndarray:
    """In float64; sign(0) = 0, and a NaN stays one."""
    d = displacement(leaf, anchor)
    found = np.zeros_like(d)
    if l1 != 0:
        found = found + l1 * np.sign(d)
    if l2 != 0:
        with np.errstate(over="ignore"):
            found = found + 2 * l2 * d
    return found


def prox(leaf: np.ndarray, l1: float, l2: float, step: float = 1.0, anchor: np.ndarray | None = None) -> np.ndarray:
    """argmin_y l1‖y‖₁ + l2‖y‖₂² + ‖y - x‖²/(2·step), of d = x - anchor, back at the anchor; in float64."""
    d = displacement(leaf, anchor)
    with np.errstate(invalid="ignore"):
        soft = np.where(np.isnan(d), d, np.sign(d) * np.maximum(np.abs(d) - step * l1, 0))
    return (0 if anchor is None else anchor.astype(np.float64)) + soft / (1 + 2 * step * l2)


def regularized(leaf: np.ndarray, l1: float, l2: float, anchor: np.ndarray | None = None) -> np.ndarray:
    """x - clip(d, -l1, l1) - l2·d, in float64."""
    d = displacement(leaf, anchor)
    shrunk = leaf.astype(np.float64) - np.clip(d, -l1, l1)
    return shrunk - l2 * d if l2 != 0 else shrunk


def stats(leaf: np.ndarray, anchor: np.ndarray | None = None) -> tuple[float, float, float, int, int]:
    """Σ|d|, Σd², max|d|, zeros, non-finite."""
    d = displacement(leaf, anchor)
    largest = float(np.max(np.abs(d))) if d.size else 0.0
    return *sums(leaf, anchor), largest, int(np.sum(d == 0)), int(np.sum(~np.isfinite(d)))
