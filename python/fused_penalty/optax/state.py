"""What a transformation keeps between steps, and schedules, which are called with its count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from .._core.errors import bad_anchor
from .._core.rules import ByPath
from .._core.strengths import check_strength
from ..jax.params import is_array, is_numeric
from ..jax.types import Anchor, PyTree, Scalar

Schedule: TypeAlias = Callable[[jax.Array], Scalar]
"""From the number of steps taken (int32, from 0) to a strength or a learning rate."""


class PenaltyState(NamedTuple):
    """The penalty's own state, the same for all transformations.

    Attributes:
      count: The number of steps taken, with which schedules are called: int32, 0-d.
      anchor: A copy of the anchor, or None.
    """

    count: jax.Array  # type: ignore[assignment]  # optax's name for it; a tuple has a method count
    anchor: Anchor | None


def first(params: PyTree, anchor: PyTree | None) -> PenaltyState:
    """The state before the first step. The anchor is copied, since a jitted step that donates the state gives its
    memory away; leaves that `optax.masked` has taken out of params are taken out of it, too."""

    def keep(p: Any, a: Any) -> Any:
        if isinstance(p, optax.MaskedNode):
            return p
        return jnp.array(a, copy=True) if is_numeric(a) else None  # a state holds arrays

    if anchor is not None and jax.tree.leaves(params):
        try:
            anchor = jax.tree.map(keep, params, anchor, is_leaf=lambda p: isinstance(p, optax.MaskedNode))
        except ValueError as e:
            raise bad_anchor("", f"its structure is not that of params ({str(e).splitlines()[0]})") from None
    elif anchor is not None:  # all masked, or the placeholder with which optax looks for copies of params
        anchor = params
    return PenaltyState(jnp.zeros((), jnp.int32), anchor)


def following(state: PenaltyState) -> PenaltyState:
    return state._replace(count=optax.safe_increment(state.count))


def rate_at(learning_rate: Scalar | Schedule, count: jax.Array) -> Scalar:
    """The learning rate at this step, checked; an array is not read on the host."""
    return check_strength("learning_rate", at(learning_rate, count), is_array)


def at(value: Any, count: jax.Array) -> Any:
    """The value at this step: schedules are called, also in trees and in by_path."""
    if isinstance(value, ByPath):
        return ByPath(tuple((glob, at(v, count)) for glob, v in value.patterns))
    return jax.tree.map(lambda v: v(count) if callable(v) else v, value)
