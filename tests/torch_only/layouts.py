"""Tensors in every layout that torch can make, each in memory of which every element is known.

A `Made` is a view of `flat`, all the memory there is; `index` says which element of it each of the view's is, found by
NumPy and not by torch, so that what a verb reads and what it writes can be compared with the memory itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from tests.support.frontends import DTYPES

Rng = np.random.Generator
Strides = tuple[int, ...]


@dataclass
class Made:
    tensor: Tensor
    flat: np.ndarray  # the memory itself, of the leaf's dtype
    index: np.ndarray  # of the shape of the tensor
    sign: int  # -1: the bits are those of -x
    dtype: str
    recipe: str

    @property
    def values(self) -> np.ndarray:
        """What the memory holds now."""
        found = self.flat[self.index]
        return -found if self.sign < 0 else found

    @property
    def repeats(self) -> bool:
        return np.unique(self.index).size < self.index.size

    def shares(self, other: Made) -> bool:
        return self.flat is other.flat and bool(np.intersect1d(self.index, other.index).size)


def row_major(shape: tuple[int, ...]) -> Strides:
    return tuple(int(np.prod(shape[k + 1 :], dtype=int)) for k in range(len(shape)))


def ordered(shape: tuple[int, ...], order: list[int]) -> Strides:
    """Dense, the dimensions in `order` from the outermost to the innermost."""
    within = row_major(tuple(shape[k] for k in order))
    return tuple(within[order.index(k)] for k in range(len(shape)))


def _contiguous(rng: Rng, shape: tuple[int, ...]) -> Strides:
    return row_major(shape)


def _permuted(rng: Rng, shape: tuple[int, ...]) -> Strides:
    return ordered(shape, rng.permutation(len(shape)).tolist())


def _transposed(rng: Rng, shape: tuple[int, ...]) -> Strides:
    return ordered(shape, [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])


def _fortran(rng: Rng, shape: tuple[int, ...]) -> Strides:
    return ordered(shape, list(range(len(shape)))[::-1])


def _channels_last(rng: Rng, shape: tuple[int, ...]) -> Strides:
    return ordered(shape, [0, *range(2, len(shape)), 1])


def _sliced(rng: Rng, shape: tuple[int, ...]) -> Strides:
    """Of a larger array, in any order of dimensions."""
    return ordered(tuple(n + int(rng.integers(0, 3)) for n in shape), rng.permutation(len(shape)).tolist())


def _stepped(rng: Rng, shape: tuple[int, ...]) -> Strides:
    steps = [int(rng.integers(1, 4)) for _ in shape]
    whole = row_major(tuple(n * s for n, s in zip(shape, steps, strict=True)))
    return tuple(w * s for w, s in zip(whole, steps, strict=True))


def _expanded(rng: Rng, shape: tuple[int, ...]) -> Strides:
    still = int(rng.integers(len(shape)))
    dense = row_major(tuple(1 if k == still else n for k, n in enumerate(shape)))
    return tuple(0 if k == still else s for k, s in enumerate(dense))


def _windows(rng: Rng, shape: tuple[int, ...]) -> Strides:
    """Overlapping, as unfold makes them."""
    return (int(rng.integers(1, 3)), *row_major(shape)[1:])


def _scattered(rng: Rng, shape: tuple[int, ...]) -> Strides:
    """as_strided with strides that fit no array; most repeat nothing."""
    return tuple(int(rng.integers(1, 12)) for _ in shape)


# layout -> (what makes its strides, the least and the largest number of dimensions)
LAYOUTS: dict[str, tuple[Callable[[Rng, tuple[int, ...]], Strides], int, int]] = {
    "contiguous": (_contiguous, 0, 9),
    "permuted": (_permuted, 2, 9),
    "transposed": (_transposed, 2, 9),
    "fortran": (_fortran, 2, 9),
    "channels_last": (_channels_last, 4, 4),
    "channels_last_3d": (_channels_last, 5, 5),
    "sliced": (_sliced, 1, 9),
    "stepped": (_stepped, 1, 9),
    "expanded": (_expanded, 1, 9),
    "windows": (_windows, 2, 9),
    "scattered": (_scattered, 1, 9),
}
BITS = ("plain", "negated", "conjugate")


def memory(rng: Rng, dtype: str, size: int) -> np.ndarray:
    """Zeros, equal numbers and numbers of several magnitudes."""
    values = rng.standard_normal(size) * 10.0 ** rng.integers(-2, 2, size)
    values[rng.random(size) < 0.15] = rng.choice([0.0, -0.0, 0.5, -1.0])
    return values.astype(DTYPES[dtype])


def tensor_of(flat: np.ndarray) -> Tensor:
    """The same memory, as torch sees it."""
    if flat.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(flat.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(flat)


def make(rng: Rng, shape: tuple[int, ...], dtype: str, *, within: Made | None = None) -> Made:
    """A tensor of random layout; `within`: in the memory of that one, if it fits."""
    fits = [name for name, (_, low, high) in LAYOUTS.items() if low <= len(shape) <= high]
    name = fits[rng.integers(len(fits))]
    strides = LAYOUTS[name][0](rng, shape)
    reach = sum(s * (n - 1) for s, n in zip(strides, shape, strict=True)) + 1 if 0 not in shape else 0
    offset = int(rng.integers(0, 6))
    flat = within.flat if within is not None and within.dtype == dtype else None
    if flat is None or reach > flat.size:
        flat = memory(rng, dtype, (reach + offset + int(rng.integers(0, 6)) + 1) // 2 * 2)
    offset = min(offset, flat.size - reach)
    bits = BITS[min(int(rng.integers(0, 10)), 2)] if rng.random() < 0.4 else "plain"
    whole = tensor_of(flat)
    if bits == "conjugate" and dtype in ("float32", "float64") and flat.size:
        whole = torch.view_as_complex(whole.view(-1, 2)).conj().imag
    elif bits != "plain":
        bits, whole = "negated", torch._neg_view(whole)
    if name == "fortran" and bits == "plain" and 0 not in shape:
        part = flat[offset : offset + reach].reshape(shape, order="F")
        assert np.shares_memory(part, flat)
        tensor = tensor_of(part) if dtype != "bfloat16" else whole.as_strided(shape, strides, offset)
    else:
        tensor = whole.as_strided(shape, strides, offset)
    at = np.arange(flat.size + 1)[offset:]
    index = np.lib.stride_tricks.as_strided(at, shape, [8 * s for s in strides], writeable=False).copy()
    recipe = f"{name} {bits} {dtype}{list(shape)} strides {list(strides)} offset {offset} of {flat.size}"
    return Made(tensor, flat, index, 1 if bits == "plain" else -1, dtype, recipe)


def shape_of(rng: Rng) -> tuple[int, ...]:
    """Small: at most 60 elements, most of the time."""
    ndim = int(rng.choice([0, 1, 2, 2, 3, 4, 4, 5, 5]))
    if rng.random() < 0.02:
        return tuple(int(n) for n in rng.integers(20, 70, 2))
    while True:
        shape = tuple(int(n) for n in rng.integers(1, 6, ndim))
        if np.prod(shape) <= 60:
            break
    if ndim and rng.random() < 0.05:
        empty = int(rng.integers(ndim))
        shape = tuple(0 if k == empty else n for k, n in enumerate(shape))
    return shape


@dataclass
class Case:
    """A list of leaves with all that a verb may be given."""

    leaves: list[Made]
    anchors: list[Made] | None
    grads: list[Made]
    l1: list[float]
    l2: list[float]

    @property
    def recipe(self) -> str:
        rows = [("leaf", self.leaves), ("anchor", self.anchors or []), ("gradient", self.grads)]
        lines = [f"  {role} {i}: {made.recipe}" for role, mades in rows for i, made in enumerate(mades)]
        return "\n".join([*lines, f"  l1={self.l1}, l2={self.l2}"])

    @property
    def memories(self) -> list[np.ndarray]:
        every = {id(m.flat): m.flat for m in [*self.leaves, *(self.anchors or []), *self.grads]}
        return list(every.values())


def case(seed: int, number: int) -> Case:
    """List `number` of a seed: always the same."""
    rng = np.random.default_rng([seed, number])
    known: list[Made] = []

    def some(shape: tuple[int, ...], dtype: str) -> Made:
        within: Any = known[rng.integers(len(known))] if known and rng.random() < 0.06 else None
        known.append(make(rng, shape, dtype, within=within))
        return known[-1]

    like = [(shape_of(rng), str(rng.choice(list(DTYPES)))) for _ in range(min(rng.integers(1, 6, 2)))]
    leaves = [some(*x) for x in like]
    anchors = [some(*x) for x in like] if rng.random() < 0.5 else None
    grads = [some(*x) for x in like]
    choice = (0.0, 0.01, 0.3, 1.0)
    own = len(like) if rng.random() < 0.4 else 1  # most lists have one strength for all
    l1, l2 = ([float(v) for v in rng.choice(choice, own)] * (len(like) // own) for _ in range(2))
    return Case(leaves, anchors, grads, l1, l2)
