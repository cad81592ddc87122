"""A case's data: one named parameter tree in one dtype, as each framework wants it, and its true sums."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from benchmarks.models import trees
from benchmarks.models.weights import minilm

if TYPE_CHECKING:
    import jax
    import torch

Leaves = dict[str, np.ndarray]
MODELS = ("gpt2", "resnet50", "many", "minilm", "vit-b16", "huge")
DTYPES = ("float32", "bfloat16")
SIZES = {f"{mib}MiB": mib << 20 for mib in (1, 4, 16, 64, 256)}  # bytes of one leaf
L1, L2 = 1e-5, 1e-4  # the strengths of every case
RATE = 1e-3  # and the learning rate of every step
MAX_NORM = 1.0  # to which gradients are clipped
# What one call costs: `single`, `few` and `some`.
CALLS: dict[str, trees.Shapes] = {
    "single": {"leaf": (1000,)},
    "some": {f"leaf{i}": (256,) for i in range(148)},
    "few": {f"leaf{i}": (256,) for i in range(300)},
}
SHAPES = trees.MODELS | CALLS


@dataclass(frozen=True)
class Tree:
    """The leaves as numpy arrays. Frameworks get copies in memory that they allocated themselves, leaf by leaf,
    because alignment and page size of somebody else's memory would change what is measured."""

    model: str
    dtype: str
    leaves: Leaves

    @property
    def elements(self) -> int:
        return sum(x.size for x in self.leaves.values())

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for x in self.leaves.values())

    @functools.cached_property
    def torch(self) -> list[torch.Tensor]:
        import torch

        if self.dtype == "bfloat16":  # numpy's bfloat16 is a stranger to torch: carry the bits
            bits = (torch.from_numpy(x.view(np.int16)) for x in self.leaves.values())
            return [b.view(torch.bfloat16).clone() for b in bits]
        return [torch.from_numpy(x).clone() for x in self.leaves.values()]

    @functools.cached_property
    def jax(self) -> dict[str, jax.Array]:
        import jax.numpy as jnp

        return {name: jnp.array(x, copy=True) for name, x in self.leaves.items()}

    @functools.cached_property
    def penalty(self) -> float:
        """The penalty of exactly these values, summed in float64: what every contender's digits are held against."""
        absolute = square = 0.0
        for x in self.leaves.values():
            flat = x.ravel()
            for i in range(0, x.size, 1 << 18):  # in pieces that stay in the cache
                wide = flat[i : i + (1 << 18)].astype(np.float64)
                absolute += float(np.abs(wide).sum())
                square += float(wide @ wide)
        return L1 * absolute + L2 * square


def load(model: str, dtype: str, values: Callable[[trees.Shapes], Leaves] = trees.arrays) -> Tree | str:
    """The tree, or why there is none. `values` fills the shapes where there are no real weights."""
    if model == "minilm":
        found, reason = minilm()
        if found is None:
            return reason
        leaves = found
    elif model in SIZES:
        width = 2 if dtype == "bfloat16" else 4
        leaves = constant({"leaf": (SIZES[model] // width,)})
    else:
        leaves = values(SHAPES[model])
    if dtype == "bfloat16":
        leaves = {name: x.astype(ml_dtypes.bfloat16) for name, x in leaves.items()}
    return Tree(model, dtype, leaves)


def constant(shapes: trees.Shapes) -> Leaves:
    """For what does not depend on values: quicker than random ones."""
    return {name: np.full(shape, 0.02, np.float32) for name, shape in shapes.items()}
