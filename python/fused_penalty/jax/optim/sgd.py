"""`sgd`: stochastic gradient descent, with or without momentum, and the penalty in the same pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._core.steps import Penalty, Step, StepRole
from ..schedules import Schedule
from ..types import Anchor, Mask, Params, PyTree, Scalar, Strength
from .coefficients import Columns, check_beta
from .moving import zeros_like
from .optimizer import Optimizer, Penalized, Summary


class SgdState(NamedTuple):
    """What `sgd` keeps between steps.

    Attributes:
      count: The number of steps taken: int32, 0-d.
      trace: The momentum, a pytree like params; None without momentum.
      anchor: A copy of the anchor, or None.
    """

    count: jax.Array  # type: ignore[assignment]  # optax's name for it; a tuple has a method count
    trace: PyTree | None
    anchor: Anchor | None


def sgd(
    learning_rate: Scalar | Schedule,
    momentum: float | None = None,
    nesterov: bool = False,
    *,
    weight_decay: Strength | Schedule = 0.0,
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule = 0.0,
    penalty: Penalty = "prox",
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    max_grad_norm: Scalar | None = None,
    state_dtype: Any | None = None,
    backend: str | None = None,
) -> Optimizer:
    """Gradient descent with the penalty in its step, in one custom call: b ← μb + g; u = b, or g + μb with nesterov;

        θ ← S(θ - lr·u, s·l1) / (1 + 2·s·l2),    s = lr/(1 - μ),    S(z, t) = z - clip(z, -t, t)

    that is proximal gradient descent: weights become exactly zero. s is the length of the step in the long run, since
    momentum adds gradients up; with lr in its place the penalty would count a tenth at μ = 0.9. With an anchor a it is
    θ - a that is pulled. With l1 = l2 = 0 it is `optax.sgd`. Works under jit, scan, vmap (an ensemble is one call) and
    on meshes, where each device moves its own parts; if params and state are donated, nothing is copied.

    Args:
      learning_rate: A float, a 0-d array or a schedule (a function of the number of steps taken).
      momentum: μ in [0, 1); None keeps no state.
      nesterov: As in `optax.sgd`.
      weight_decay: Added to the gradient as weight_decay·θ, as in torch.optim.SGD: a float, a schedule, or as l1.
      l1, l2: Strengths as in `fused_penalty.jax.penalty`, or schedules.
      penalty: "prox" as above; "decoupled" with s = lr; "grad" adds l1·sign(θ) + 2·l2·θ to the gradient.
      mask, anchor, backend: As in `fused_penalty.jax.penalty`. Leaves that the mask leaves out move without a penalty.
        The anchor is copied into the state.
      max_grad_norm: Clip the gradients by their global norm within the step: a float >= 0 or a 0-d array.
      state_dtype: float32 keeps the momentum of float16 and bfloat16 leaves in float32; None keeps it in their dtype.

    Returns:
      An `Optimizer`: `init(params)` gives an `SgdState`, `step(params, grads, state)` new params, the new state and a
      `Summary`. Each array is computed in float32 or wider and rounded once.

    Raises:
      TypeError, ValueError, RuntimeError: As in `fused_penalty.jax.prox`; grads or state are not like params.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, sections 4.2 and 6.5.

    Example:
      >>> import jax.numpy as jnp
      >>> from fused_penalty.jax.optim import sgd
      >>> optimizer = sgd(0.5, l1=1.0)
      >>> params = {"w": jnp.array([0.75, -2.0])}
      >>> params, state, summary = optimizer.step(params, {"w": jnp.ones(2)}, optimizer.init(params))
      >>> params["w"].tolist(), float(summary.penalty)
      ([0.0, -2.0], 2.75)
    """
    common = Penalized(learning_rate, weight_decay, l1, l2, penalty, mask, anchor, max_grad_norm, backend)
    mu = 0.0 if momentum is None else check_beta("momentum", momentum)
    step = Step.SGD if momentum is None else Step.MOMENTUM

    def init(params: Params) -> SgdState:
        trace = None if momentum is None else zeros_like(params, state_dtype)
        return SgdState(jnp.zeros((), jnp.int32), trace, common.first_anchor())

    def columns(rate: jax.Array, decay: jax.Array, dtype: Any) -> tuple[Columns, Any]:
        found = {"decay": decay, "rate": rate, "keep": mu, "take": 1.0, "look": mu if nesterov else 0.0}
        return found, rate if penalty == "decoupled" else rate / (1 - mu)

    def make(params: Params, grads: PyTree, state: SgdState) -> tuple[PyTree, SgdState, Summary]:
        before = {} if momentum is None else {StepRole.FIRST: state.trace}
        new, after, summary = common.make(step, params, grads, before, state.anchor, state.count, columns)
        return new, SgdState(state.count + 1, after.get(StepRole.FIRST), state.anchor), summary

    return Optimizer(init, make)
