"""A pytree of params -> the selected leaves as JAX arrays, with their paths, strengths and anchors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from .._core.dtypes import DTYPES, WRITABLE
from .._core.errors import bad, bad_anchor, bad_dtype, bad_object, bad_write
from .._core.rules import Rule
from .._core.strengths import Groups, group, resolve_mask, resolve_strengths
from .tree import Flat, flatten, refuse_collections
from .types import Anchor, Mask, Params, PyTree, Strength

SUPPORTED = frozenset(jnp.dtype(name) for name in DTYPES)
LEAF = jax.tree.structure(0)


@dataclass(frozen=True)
class Selection:
    """The flattened params, and what a call needs of those leaves that are selected."""

    flat: Flat
    index: list[int]  # positions of the selected leaves
    leaves: tuple[jax.Array, ...]
    anchors: tuple[jax.Array, ...]  # empty without an anchor
    groups: Groups

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the selected leaves."""
        return tuple(self.flat.paths[i] for i in self.index)

    def check_writable(self) -> None:
        """Raise for the first selected leaf of a dtype that no operation writes."""
        for x, path in zip(self.leaves, self.paths, strict=True):
            if x.dtype.name not in WRITABLE:
                raise bad_write(path, x.dtype)

    def tree(self, values: Sequence[Any], others: Sequence[Any]) -> PyTree:
        """A tree like params: the values of the selected leaves, and what `others` has for the rest."""
        found = list(others)
        for i, value in zip(self.index, values, strict=True):
            found[i] = value
        for i, first in self.flat.same.items():
            found[i] = found[first]
        return self.flat.treedef.unflatten(found)


def select(
    params: Params | Flat,
    l1: Strength,
    l2: Strength,
    mask: Mask | None,
    anchor: Anchor | None,
    *,
    among: Sequence[bool] | None = None,
    names: tuple[str, str] = ("l1", "l2"),
) -> Selection:
    """Flatten, mask and check; nothing is computed yet. `among`: the leaves that may be selected at all. `names`: what
    the user calls the strengths."""
    flat = params if isinstance(params, Flat) else Flat(params)
    params = flat.tree
    if mask is None:
        refuse_collections(params)

    def broadcast(argument: str, tree: Any) -> list[Any] | None:
        if tree is None or flatten(argument, tree)[1] == LEAF:
            return None
        found = flat.spread(tree)
        if found is None:
            raise _no_prefix(argument, tree, params)
        return found

    selected = flat.counted if among is None else [a and b for a, b in zip(flat.counted, among, strict=True)]
    if mask is not None:
        selected = resolve_mask(mask(params) if _is_function(mask) else mask, flat.about, selected, broadcast)
    index = [i for i, keep in enumerate(selected) if keep]
    leaves = tuple(_as_array(flat.leaves[i], flat, i) for i in index)
    strengths = (
        resolve_strengths(name, value, flat.about, selected, is_array, broadcast)
        for name, value in zip(names, (l1, l2), strict=True)
    )
    anchors = () if anchor is None else _anchors(Flat(anchor, "anchor"), flat, index, leaves)
    return Selection(flat, index, leaves, anchors, group(len(leaves), *strengths))


def mask_of(rule: Rule, params: PyTree) -> PyTree:
    """A tree of bools like params, as optax takes it."""
    flat = Flat(params)
    found = resolve_mask(rule, flat.about, [True] * len(flat.leaves), lambda *_: None)
    return flat.treedef.unflatten(found)


def is_array(x: Any) -> bool:
    return isinstance(x, jax.Array)


def is_numeric(x: Any) -> bool:
    """Whether JAX can take a leaf as an array, which it cannot with a function, say."""
    return isinstance(x, (jax.Array, np.ndarray, np.generic, bool, int, float, complex))


def _is_function(mask: Mask) -> TypeGuard[Callable[[Params], Any]]:
    """Whether a mask is to be called. A tree of bools may be callable itself, as a Module of equinox or nnx is."""
    return callable(mask) and all(map(callable, jax.tree.leaves(mask)))


def _no_prefix(argument: str, tree: Any, params: Params) -> Exception:
    try:
        jax.tree.broadcast(tree, params)
        what = ""
    except ValueError as e:
        what = f" ({str(e).splitlines()[0]})"
    return bad(
        ValueError, argument, f"its tree is not a prefix of the tree of params{what}",
        "Give a scalar, or a tree whose leaves stand for whole subtrees of params",
    )  # fmt: skip


def _as_array(x: Any, flat: Flat, i: int, argument: str = "params") -> jax.Array:
    if isinstance(x, (np.ndarray, np.generic, float)) and not isinstance(x, bool):
        if isinstance(x, (np.ndarray, np.generic)) and jnp.dtype(x.dtype) not in SUPPORTED:
            raise bad_dtype(flat.paths[i], x.dtype)
        x = jnp.asarray(x)
    if not isinstance(x, jax.Array):
        if isinstance(x, (bool, int, complex)):
            raise bad_dtype(flat.paths[i], type(x).__name__)
        raise bad_object(flat.paths[i], x, "a JAX array, a numpy array or a float", argument=argument)
    if x.dtype not in SUPPORTED:
        raise bad_dtype(flat.paths[i], x.dtype)
    if isinstance(x, jax.core.Tracer) and not all(isinstance(n, int) for n in x.shape):
        raise bad(
            ValueError, "params", f"the shape {x.shape} is symbolic, but a launch is planned for sizes",
            "Export for each shape that you need", path=flat.paths[i],
        )  # fmt: skip
    return x


def _anchors(anchor: Flat, flat: Flat, index: list[int], leaves: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    twins = flat.twins(anchor)
    if twins is None or not twins.keys() >= set(index):
        raise bad_anchor("", f"its structure {anchor.treedef} is not that of params, {flat.treedef}")
    found = tuple(_as_array(twins[i], flat, i, "anchor") for i in index)
    for i, a, x in zip(index, found, leaves, strict=True):
        if a.shape != x.shape or a.dtype != x.dtype:
            raise bad_anchor(flat.paths[i], f"{a.dtype}{list(a.shape)} beside a leaf of {x.dtype}{list(x.shape)}")
    return found
