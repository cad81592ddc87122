"""The leaves that a step moves: those with a gradient, with their state and strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._core.errors import bad
from ..._core.steps import StepRole
from ..params import Selection, is_numeric, select
from ..tree import Flat
from ..types import Anchor, Mask, Params, PyTree, Strength


@dataclass(frozen=True)
class Strengths:
    """l1, l2 and weight decay, as given by the user."""

    l1: Strength
    l2: Strength
    weight_decay: Strength


@dataclass(frozen=True)
class Moving:
    """`of_leaf`: the group of each leaf that moves; `triples`: the strengths (l1, l2, weight decay) of each group, with
    l1 = l2 = 0 where the mask leaves a leaf out."""

    selection: Selection  # all leaves that move, whatever the mask says
    of_leaf: tuple[int, ...]
    triples: tuple[tuple[Any, Any, Any], ...]
    gradients: tuple[jax.Array, ...]
    state: Mapping[StepRole, tuple[jax.Array, ...]]
    _states: Mapping[StepRole, list[Any]]  # of all leaves, by position

    def params(self, new: Sequence[jax.Array]) -> PyTree:
        return self.selection.tree(new, self.selection.flat.leaves)

    def state_tree(self, role: StepRole, new: Sequence[jax.Array]) -> PyTree:
        return self.selection.tree(new, self._states[role])


def moving(
    params: Params,
    grads: PyTree,
    state: Mapping[StepRole, PyTree],
    strengths: Strengths,
    mask: Mask | None,
    anchor: Anchor | None,
) -> Moving:
    """Flatten and check; nothing is computed yet."""
    flat = Flat(params)
    given = _entries("grads", grads, flat)
    moves = [g is not None and getattr(g, "dtype", None) != jax.dtypes.float0 for g in given]
    decayed = select(flat, strengths.weight_decay, 0.0, True, anchor, among=moves, names=("weight_decay", "l2"))
    decayed.check_writable()
    penalized = select(flat, strengths.l1, strengths.l2, mask, None, among=moves)
    of_penalty = dict(zip(penalized.index, penalized.groups.of_leaf, strict=True))
    keys = [(of_penalty.get(i), k) for i, k in zip(decayed.index, decayed.groups.of_leaf, strict=True)]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    p = penalized.groups
    triples = tuple(
        (0.0 if k is None else p.l1[k], 0.0 if k is None else p.l2[k], decayed.groups.l1[d]) for k, d in number
    )
    leaves = list(zip(decayed.index, decayed.leaves, strict=True))
    gradients = tuple(_like("grads", given[i], x, flat, i).astype(x.dtype) for i, x in leaves)
    states = {role: _entries("state", tree, flat) for role, tree in state.items()}
    own = {role: tuple(_like("state", entries[i], x, flat, i) for i, x in leaves) for role, entries in states.items()}
    return Moving(decayed, tuple(number[key] for key in keys), triples, gradients, own, states)


def _entries(argument: str, tree: PyTree, flat: Flat) -> list[Any]:
    """What the tree has for each leaf of params, None included."""
    try:
        found: list[Any] = flat.treedef.flatten_up_to(tree)
    except (TypeError, ValueError) as e:
        raise bad(
            ValueError, argument, f"its structure is not that of params ({str(e).splitlines()[0]})",
            "Give a pytree like params, with None for leaves that do not move",
        ) from None  # fmt: skip
    return found


def _like(argument: str, value: Any, x: jax.Array, flat: Flat, i: int) -> jax.Array:
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, float)) or jnp.shape(value) != x.shape:
        what = f"shape {jnp.shape(value)}" if hasattr(value, "shape") else type(value).__name__
        raise bad(
            ValueError, argument, f"{what} is not an array of the leaf's shape {x.shape}",
            "Give gradients of these params, and the state that `init` made for them", path=flat.paths[i],
        )  # fmt: skip
    return jnp.asarray(value)


def zeros_like(params: Params, dtype: Any | None) -> PyTree:
    """The state before the first step: zeros for each floating leaf, None for others. `dtype`: float32 for leaves of 16
    bits, or None."""
    if dtype is not None and jnp.dtype(dtype) != jnp.float32:
        raise bad(ValueError, "state_dtype", f"{jnp.dtype(dtype).name} is not supported", "Use float32 or None")

    def zeros(x: Any) -> jax.Array | None:
        kind = jnp.result_type(x) if is_numeric(x) else None
        if kind is None or not jnp.issubdtype(kind, jnp.floating):
            return None
        return jnp.zeros_like(x, dtype=jnp.float32 if dtype is not None and kind.itemsize == 2 else kind)

    return jax.tree.map(zeros, params)
