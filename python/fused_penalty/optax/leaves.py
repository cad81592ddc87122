"""The penalty of each leaf: what the transformations' arguments mean for these params at this step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from .._core.operations import Op
from .._core.strengths import WeightDecay, both_given
from ..jax.elastic_net import written
from ..jax.params import select
from ..jax.schedules import Schedule, at
from ..jax.strengths import coefficients
from ..jax.types import Anchor, Mask, PyTree, Strength
from .state import PenaltyState, first
from .trees import updated


@dataclass(frozen=True)
class LeafPenalty:
    """The penalty of one leaf. JAX takes it for a leaf of a tree."""

    l1: Any  # floats or 0-d arrays
    l2: Any
    terms: int
    anchor: jax.Array | None

    def written(self, op: Op, x: jax.Array, step: Any) -> jax.Array:
        """What the operation writes, in float32 or wider: jnp that XLA fuses. A step may be an array like x."""
        a, b = coefficients(op, self.l1, self.l2, step, x.dtype)
        return written(op, x, self.anchor, a, b, self.terms)


@dataclass(frozen=True)
class Penalty:
    """The arguments that the transformations share, as they were given."""

    l1: Strength | Schedule
    l2: Strength | Schedule | None
    mask: Mask | None
    anchor: Anchor | None
    weight_decay: Strength | Schedule | None = None

    def __post_init__(self) -> None:
        if self.l2 is not None and self.weight_decay is not None:
            raise both_given()

    def init(self, params: PyTree) -> PenaltyState:
        return first(params, self.anchor)

    def of_leaves(self, updates: PyTree, state: PenaltyState, params: PyTree) -> PyTree:
        """A tree like params: a LeafPenalty where a leaf is selected and has an update, and None elsewhere."""
        l1 = at(self.l1, state.count)
        if self.weight_decay is not None:
            l2: Any = WeightDecay(at(self.weight_decay, state.count))
        else:
            l2 = 0.0 if self.l2 is None else at(self.l2, state.count)
        s = select(params, l1, l2, self.mask, state.anchor, among=updated(updates, params))
        s.check_writable()
        g = s.groups
        found = [
            LeafPenalty(g.l1[k], g.l2[k], g.terms[k], s.anchors[i] if s.anchors else None)
            for i, k in enumerate(g.of_leaf)
        ]
        return s.tree(found, [None] * len(s.flat.leaves))
