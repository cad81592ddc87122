"""What the optimizers share: from params and gradients to one launch and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._core import backends
from ..._core.norms import check_max_norm
from ..._core.steps import Penalty, Step, StepRole, check_penalty
from ..calculus import combine
from ..launch import result_dtype
from ..norms import global_norm
from ..params import is_array, is_numeric
from ..placement import explained
from ..schedules import Schedule, at, rate_at
from ..slots import halves, joined
from ..steps import StepSpec, make
from ..strengths import scalar
from ..types import Anchor, Mask, Params, PyTree, Scalar, Strength
from .coefficients import Columns, matrix, penalty_columns
from .moving import Strengths, moving


class Summary(NamedTuple):
    """What a step found, all in the same pass: scalars.

    Attributes:
      penalty: The penalty of the params before the step, where the loss was taken.
      grad_norm: The 2-norm of the gradients as the step was given them (not clipped).
      step_norm: The 2-norm of the change of the params.
      zeros: How many elements params - anchor the step leaves at zero; saturates at the largest int32.
      nonfinite: How many elements of the gradients are inf or NaN; saturates likewise.
    """

    penalty: jax.Array
    grad_norm: jax.Array
    step_norm: jax.Array
    zeros: jax.Array
    nonfinite: jax.Array


class Optimizer(NamedTuple):
    """A pair of pure functions.

    Attributes:
      init: params -> state.
      step: (params, grads, state) -> (params, state, summary). grads: a pytree like params; where an entry is None,
        that leaf and its state stay as they are. A gradient of another dtype is converted to that of its leaf.
    """

    init: Callable[[Params], Any]
    step: Callable[[Params, PyTree, Any], tuple[PyTree, Any, Summary]]


@dataclass(frozen=True)
class Penalized:
    """The arguments that the optimizers share, as they were given."""

    learning_rate: Scalar | Schedule
    weight_decay: Strength | Schedule
    l1: Strength | Schedule
    l2: Strength | Schedule
    penalty: Penalty
    mask: Mask | None
    anchor: Anchor | None
    max_grad_norm: Scalar | None
    backend: str | None

    def __post_init__(self) -> None:
        check_penalty(self.penalty)
        if self.max_grad_norm is not None:
            check_max_norm(self.max_grad_norm, is_array, "max_grad_norm")
        backends.requested("jax", self.backend)

    def first_anchor(self) -> Anchor | None:
        """A copy for the state, since a jitted step that donates the state gives its memory away."""
        if self.anchor is None:
            return None
        return jax.tree.map(lambda a: jnp.array(a, copy=True) if is_numeric(a) else None, self.anchor)

    def make(
        self,
        step: Step,
        params: Params,
        grads: PyTree,
        state: Mapping[StepRole, PyTree],
        anchor: Anchor | None,
        count: jax.Array,
        columns: Callable[[jax.Array, jax.Array, Any], tuple[Columns, Any]],
    ) -> tuple[PyTree, dict[StepRole, PyTree], Summary]:
        """(new params, new state, what was found). `columns(learning rate, weight decay (groups,), dtype)`: the
        coefficients other than the penalty's, and the length of the proximal step."""
        rate = rate_at(self.learning_rate, count)
        strengths = Strengths(*(at(v, count) for v in (self.l1, self.l2, self.weight_decay)))
        m = moving(params, grads, state, strengths, self.mask, anchor)
        s = m.selection
        if not s.leaves:
            return params, dict(state), _nothing()
        dtype = result_dtype(s.leaves)
        l1, l2, decay = (tuple(scalar(v, dtype) for v in values) for values in zip(*m.triples, strict=True))
        of_optimizer, length = columns(scalar(rate, dtype), jnp.stack(decay), dtype)
        rows = {**of_optimizer, **penalty_columns(self.penalty, length, l1, l2)}
        norm = None
        if self.max_grad_norm is not None:
            norm = global_norm(list(m.gradients), backend=self.backend)
            rows["scale"] = jnp.minimum(1, scalar(self.max_grad_norm, norm.dtype) / (norm + 1e-6)).astype(dtype)
        spec = StepSpec(backends.requested("jax", self.backend), step, m.of_leaf)
        arrays = (m.gradients, *(m.state[role] for role in step.state))
        with explained(s):
            made = make(spec, matrix(rows, len(l1), dtype), s.leaves, s.anchors, arrays)
        found = _summary(combine(l1, l2, made.reals[:, :2]), made.reals, made.counts, norm)
        new_state = dict(zip(step.state, made.state, strict=True))
        return m.params(made.leaves), {role: m.state_tree(role, new_state[role]) for role in step.state}, found


@jax.jit
def _summary(penalty: jax.Array, reals: jax.Array, counts: jax.Array, norm: jax.Array | None) -> Summary:
    squares = jnp.sum(reals[:, 2:], axis=0)
    grad_norm = jnp.sqrt(squares[0]) if norm is None else norm
    low, high = (jnp.sum(part, axis=0) for part in halves(counts))
    whole = joined(low, high)
    return Summary(penalty, grad_norm, jnp.sqrt(squares[1]), whole[0], whole[1])


def _nothing() -> Summary:
    """Of a step that moves nothing."""
    zero, none = scalar(0.0, np.float32), scalar(0.0, np.int32)
    return Summary(zero, zero, zero, none, none)
