"""The penalty beside an optimizer: `add_penalty_grads` for its gradient, `proximal` for exact zeros."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._core.errors import bad
from .._core.operations import Op
from ..jax.elastic_net import wide
from ..jax.schedules import Schedule, rate_at
from ..jax.types import Anchor, Mask, PyTree, Scalar, Strength
from .leaves import LeafPenalty, Penalty
from .prox import prox_updates
from .state import PenaltyState, following
from .trees import given, joined, map_updates


def add_penalty_grads(
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    *,
    weight_decay: Strength | Schedule | None = None,
) -> optax.GradientTransformation:
    """Add the penalty's gradient to the updates: g_i ← g_i + l1_i·sign(d_i) + 2·l2_i·d_i, d = x - anchor.

    With weight_decay = wd and l1 = 0 it is `optax.add_decayed_weights(wd)`; before the optimizer it is the gradient of
    the penalty, after one and before the learning rate it is decoupled decay. It is elementwise jnp that XLA fuses into
    the update: no launch, no buffer. It does not compute the penalty's value; to log it, put
    `fused_penalty.jax.penalty` into the loss instead.

    Args:
      l1, l2: Strengths as in `fused_penalty.jax.penalty`; a callable, alone, in a tree or in `by_path`, is a schedule
        from the step count (from 0) to a strength. Without it l2 is 0.
      mask: As in `fused_penalty.jax.penalty` (and optax); updates of leaves that are left out pass unchanged.
      anchor: A pytree like params. `init` copies it into the state, so that jit does not take it for a constant.
      weight_decay: l2 with the ½ that its name implies elsewhere: `weight_decay=wd` is `l2 = wd / 2`.

    Returns:
      An `optax.GradientTransformation`. Updates keep their dtype (or widen, where params are wider, as in optax);
      the sum is computed in float32 or wider and rounded once. None and `optax.MaskedNode` pass
      unchanged.

    Raises:
      TypeError: (from `init` and `update`) As in `fused_penalty.jax.penalty_and_grad`: float8 leaves must be masked.
      ValueError: Both l2 and weight_decay are given; (from `init` and `update`) as in `fused_penalty.jax.penalty`, or
        `update` gets no params.

    Source: `optax.add_decayed_weights`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fused_penalty.optax import add_penalty_grads
      >>> optimizer = optax.chain(add_penalty_grads(l1=1.0, l2=0.5), optax.sgd(0.125))
      >>> params = {"w": jnp.array([2.0, 0.0, -4.0])}
      >>> updates, _ = optimizer.update({"w": jnp.zeros(3)}, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [1.625, 0.0, -3.375]
    """

    penalty = Penalty(l1, l2, mask, anchor, weight_decay)

    def update(updates: PyTree, state: PenaltyState, params: PyTree | None = None) -> tuple[PyTree, PenaltyState]:
        leaves = penalty.of_leaves(updates, state, given(params))
        return map_updates(_add, updates, leaves, params), following(state)

    return optax.GradientTransformation(penalty.init, update)


def proximal(
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule | None = None,
    learning_rate: Scalar | Schedule | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    *,
    weight_decay: Strength | Schedule | None = None,
) -> optax.GradientTransformation:
    """End a step with the penalty's proximal step, so that weights become exactly zero. Last in a chain.

        y = params + updates;    new params = S(y, lr·l1) / (1 + 2·lr·l2),    S(y, t) = sign(y)·max(|y| - t, 0)

    that is argmin_z l1‖z‖₁ + l2‖z‖² + ‖z - y‖²/(2·lr). The subgradient of `add_penalty_grads` oscillates around zero;
    this step lands there and stays: `optax.apply_updates` gives exact zeros. It is elementwise jnp, too: a kernel
    (`fused_penalty.jax.prox`) would need all of params + updates at once, a buffer of the model's size.

    It suits optimizers with one step size for all elements, as SGD has. After Adam its fixed point is not the minimum
    of loss + penalty, and few weights become zero: there use `proximal_adamw`. Momentum μ adds up 1/(1 - μ) gradients,
    so after `optax.sgd(lr, μ)` the step size is lr/(1 - μ); `proximal_sgd` knows that.

    Args:
      l1, l2, mask, anchor, weight_decay: As in `add_penalty_grads`. With an anchor it is x - anchor that becomes zero,
        up to the rounding of the sum in `apply_updates`.
      learning_rate: The step size, that of the optimizer before: a float, a 0-d array or a schedule. Required. Arrays
        are not read on the host: if it or a strength is an array that is negative or NaN, the updates are NaN. It may
        differ from the optimizer's: `lambda count: rate(count) / peak` makes a penalty that follows the shape of a
        schedule and not its height.

    Returns:
      An `optax.GradientTransformation` whose updates are new params - params. What comes after it in a chain would
      change them. Where a leaf's strengths are both statically 0 its updates pass unchanged.

    Raises:
      TypeError: learning_rate is missing; (from `init` and `update`) as in `fused_penalty.jax.prox`, whose step is the
        learning rate.
      ValueError: Both l2 and weight_decay are given; (from `init` and `update`) as in `fused_penalty.jax.prox`, or
        `update` gets no params.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, sections 4.2 and 6.5.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fused_penalty.optax import proximal
      >>> optimizer = optax.chain(optax.sgd(0.5), proximal(l1=1.0, learning_rate=0.5))
      >>> params = {"w": jnp.array([2.0, 0.25, -4.0])}
      >>> updates, _ = optimizer.update({"w": jnp.zeros(3)}, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [1.5, 0.0, -3.5]
    """

    if learning_rate is None:
        raise bad(TypeError, "learning_rate", "it is missing", "Give the learning rate of the optimizer before")
    penalty = Penalty(l1, l2, mask, anchor, weight_decay)

    def update(updates: PyTree, state: PenaltyState, params: PyTree | None = None) -> tuple[PyTree, PenaltyState]:
        leaves = penalty.of_leaves(updates, state, given(params))
        return prox_updates(updates, leaves, params, rate_at(learning_rate, state.count)), following(state)

    return optax.GradientTransformation(penalty.init, update)


def _add(update: jax.Array, penalty: LeafPenalty | None, param: Any) -> jax.Array:
    if penalty is None:  # masked
        return update
    gradient = penalty.written(Op.GRADIENT, wide(jnp.asarray(param)), 1.0)
    total = update.astype(joined(update, gradient)) + gradient
    return total.astype(joined(update, param))
