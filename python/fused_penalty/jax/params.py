"""A pytree of params -> the selected leaves as JAX arrays, with their paths, strengths and anchors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core.containers import walk
from .._core.errors import bad, bad_anchor, bad_dtype, bad_object
from .._core.plan import DTYPES
from .._core.strengths import Groups, check_mask_leaf, group, resolve_strengths

SUPPORTED = frozenset(jnp.dtype(name) for name in DTYPES)
PyTree = Any
LEAF = jax.tree.structure(0)


def dotted(path: Sequence[Any]) -> str:
    """`decoder.0.kernel` for a key path of jax.tree_util."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator=".")


@dataclass(frozen=True)
class Selection:
    """The flattened params, and what a call needs of those leaves that are selected."""

    all_leaves: list[Any]
    treedef: Any
    index: list[int]  # positions of the selected leaves
    leaves: tuple[jax.Array, ...]
    anchors: tuple[jax.Array, ...]  # empty without an anchor
    paths: tuple[str, ...] | None  # of the selected leaves, where they were asked for
    groups: Groups


def flatten(argument: str, tree: PyTree) -> tuple[list[Any], Any]:
    """`jax.tree.flatten`, which ends in a SystemError where containers are too deep or hold themselves."""
    try:
        return jax.tree.flatten(tree)
    except (RecursionError, SystemError):
        for _ in walk(argument, tree):
            pass
        raise


def select(
    params: PyTree, l1: Any, l2: Any, mask: Any, anchor: PyTree | None, *, with_paths: bool = False
) -> Selection:
    """Flatten, mask and check; nothing is computed yet."""
    all_leaves, treedef = flatten("params", params)

    @functools.cache
    def paths() -> tuple[str, ...]:
        return tuple(dotted(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0])

    def broadcast(argument: str, tree: Any) -> list[Any] | None:
        if tree is None or flatten(argument, tree)[1] == LEAF:
            return None
        try:
            return jax.tree.leaves(jax.tree.broadcast(tree, params))
        except ValueError as e:
            raise bad(
                ValueError, argument, f"its tree is no prefix of the tree of params ({str(e).splitlines()[0]})",
                "Give a scalar, or a tree whose leaves stand for whole subtrees of params",
            ) from None  # fmt: skip

    selected = [True] * len(all_leaves)
    if mask is not None:
        tree = mask(params) if callable(mask) else mask
        flat = broadcast("mask", tree)
        values = [tree] * len(all_leaves) if flat is None else flat
        selected = [check_mask_leaf(v, paths()[i]) for i, v in enumerate(values)]
    index = [i for i, keep in enumerate(selected) if keep]
    leaves = tuple(_as_array(all_leaves[i], paths, i) for i in index)
    strengths = (
        resolve_strengths(name, value, paths, all_leaves, selected, is_array, broadcast)
        for name, value in (("l1", l1), ("l2", l2))
    )
    return Selection(
        all_leaves,
        treedef,
        index,
        leaves,
        _anchors(anchor, treedef, index, leaves, paths),
        tuple(paths()[i] for i in index) if with_paths else None,
        group(len(leaves), *strengths),
    )


def is_array(x: Any) -> bool:
    return isinstance(x, jax.Array)


def _as_array(x: Any, paths: Any, i: int) -> jax.Array:
    if isinstance(x, (np.ndarray, np.generic, float)) and not isinstance(x, bool):
        if isinstance(x, (np.ndarray, np.generic)) and jnp.dtype(x.dtype) not in SUPPORTED:
            raise bad_dtype(paths()[i], x.dtype)
        x = jnp.asarray(x)
    if not isinstance(x, jax.Array):
        if isinstance(x, (bool, int, complex)):
            raise bad_dtype(paths()[i], type(x).__name__)
        raise bad_object(paths()[i], x, "a JAX array, a numpy array or a float")
    if x.dtype not in SUPPORTED:
        raise bad_dtype(paths()[i], x.dtype)
    return x


def _anchors(
    anchor: PyTree | None, treedef: Any, index: list[int], leaves: tuple[jax.Array, ...], paths: Any
) -> tuple[jax.Array, ...]:
    if anchor is None:
        return ()
    flat, structure = flatten("anchor", anchor)
    if structure != treedef:
        raise bad_anchor("", f"its structure {structure} is not that of params, {treedef}")
    found = tuple(_as_array(flat[i], paths, i) for i in index)
    for i, a, x in zip(index, found, leaves, strict=True):
        if a.shape != x.shape or a.dtype != x.dtype:
            raise bad_anchor(paths()[i], f"{a.dtype}{list(a.shape)} beside a leaf of {x.dtype}{list(x.shape)}")
    return found
