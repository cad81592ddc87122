"""What a transformation keeps between steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .._core.errors import bad_anchor
from ..jax.params import is_numeric
from ..jax.types import Anchor, PyTree


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
