"""`adam` and `adamw`, with the penalty in the same pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._core.steps import Penalty, Step, StepRole
from ..schedules import Schedule
from ..types import Anchor, Mask, Params, PyTree, Scalar, Strength
from .coefficients import Columns, bias, check_beta
from .moving import zeros_like
from .optimizer import Optimizer, Penalized, Summary


class AdamState(NamedTuple):
    """What `adam` and `adamw` keep between steps.

    Attributes:
      count: The number of steps taken: int32, 0-d.
      mu: The first moment of the gradients, a pytree like params.
      nu: The second moment of the gradients, a pytree like params.
      nu_max: The largest second moment so far; None without amsgrad.
      anchor: A copy of the anchor, or None.
    """

    count: jax.Array  # type: ignore[assignment]  # optax's name for it; a tuple has a method count
    mu: PyTree
    nu: PyTree
    nu_max: PyTree | None
    anchor: Anchor | None


def adam(
    learning_rate: Scalar | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    amsgrad: bool = False,
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
    """Adam with the penalty in its step, in one custom call. With m̂ and v̂ as in Adam and D = √v̂ + eps,

        z = θ - lr·m̂/D;    θ ← S(z, lr·l1/D) / (1 + 2·lr·l2/D),    S(z, t) = z - clip(z, -t, t)

    The proximal step is made in Adam's own metric D, so l1 means what it means in `penalty`: a weight rests at zero
    exactly where |∂loss/∂θ| ≤ l1. An element that never had a gradient (v = 0) is left alone. With an anchor a it is
    θ - a that is pulled. With l1 = l2 = 0 it is `optax.adam`, but for rounding: the bias corrections keep digits that
    1 - b2^t loses in float32. Works under jit, scan, vmap and on meshes, as `sgd`; if params and state are donated,
    nothing is copied.

    Args:
      learning_rate: A float, a 0-d array or a schedule (a function of the number of steps taken).
      b1, b2: Rates of decay of the moments, in [0, 1).
      eps: Added to √v̂.
      amsgrad: Divide by the largest second moment so far, as torch.optim.Adam does.
      weight_decay: Added to the gradient as weight_decay·θ, as in torch.optim.Adam: a float, a schedule, or as l1.
      l1, l2: Strengths as in `fused_penalty.jax.penalty`, or schedules.
      penalty: "prox" as above. "decoupled": the euclidean proximal step, S(z, lr·l1) / (1 + 2·lr·l2), which does not
        minimise loss + penalty. "grad": l1·sign(θ) + 2·l2·θ is added to the gradient.
      mask, anchor, max_grad_norm, backend: As in `sgd`.
      state_dtype: float32 keeps the moments of float16 and bfloat16 leaves in float32; None keeps them in their dtype.

    Returns:
      An `Optimizer`: `init(params)` gives an `AdamState`, `step(params, grads, state)` new params, the new state and a
      `Summary`.

    Raises:
      TypeError, ValueError, RuntimeError: As in `sgd`; b1 or b2 is not in [0, 1).

    Source: Yun, Lozano, Yang, "Adaptive proximal gradient methods", NeurIPS 2021, arXiv 2007.07484.

    Example:
      >>> import jax.numpy as jnp
      >>> from fused_penalty.jax.optim import adam
      >>> optimizer = adam(0.5, l1=0.5)
      >>> params = {"w": jnp.array([0.25, -2.0])}
      >>> params, state, summary = optimizer.step(params, {"w": jnp.ones(2)}, optimizer.init(params))
      >>> params["w"].round(4).tolist(), float(summary.penalty)
      ([0.0, -2.25], 1.125)
    """
    common = Penalized(learning_rate, weight_decay, l1, l2, penalty, mask, anchor, max_grad_norm, backend)
    return _adam(common, b1, b2, eps, state_dtype, amsgrad=amsgrad, decoupled=False)


def adamw(
    learning_rate: Scalar | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: Strength | Schedule = 1e-4,
    *,
    amsgrad: bool = False,
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule = 0.0,
    penalty: Penalty = "prox",
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    max_grad_norm: Scalar | None = None,
    state_dtype: Any | None = None,
    backend: str | None = None,
) -> Optimizer:
    """AdamW with the penalty in its step: `adam` with decoupled weight decay, z = (1 - lr·weight_decay)·θ - lr·m̂/D.

    Args:
      learning_rate, b1, b2, eps, amsgrad: As in `adam`.
      weight_decay: As in `optax.adamw`: a decay beside l2 (both count), without the ½ and not in Adam's metric. Leaves
        can differ: `no_decay_on_norms_and_biases(1e-4)`, a tree, or whatever l1 may be. The mask does not matter to it.
      l1, l2, penalty, mask, anchor, max_grad_norm, state_dtype, backend: As in `adam`.

    Returns:
      As `adam`.

    Raises:
      TypeError, ValueError, RuntimeError: As in `adam`.

    Source: As `adam`; Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Example:
      >>> import jax.numpy as jnp
      >>> from fused_penalty.jax.optim import adamw
      >>> optimizer = adamw(0.5, weight_decay=0.0, l1=0.5)
      >>> params = {"w": jnp.array([0.25, -2.0])}
      >>> params, state, summary = optimizer.step(params, {"w": jnp.ones(2)}, optimizer.init(params))
      >>> params["w"].round(4).tolist(), int(summary.zeros)
      ([0.0, -2.25], 1)
    """
    common = Penalized(learning_rate, weight_decay, l1, l2, penalty, mask, anchor, max_grad_norm, backend)
    return _adam(common, b1, b2, eps, state_dtype, amsgrad=amsgrad, decoupled=True)


def _adam(
    common: Penalized, b1: float, b2: float, eps: float, state_dtype: Any | None, *, amsgrad: bool, decoupled: bool
) -> Optimizer:
    decay1, decay2 = check_beta("b1", b1), check_beta("b2", b2)
    step = Step.AMSGRAD if amsgrad else Step.ADAM

    def init(params: Params) -> AdamState:
        mu, nu, nu_max = (zeros_like(params, state_dtype) if kept else None for kept in (True, True, amsgrad))
        return AdamState(jnp.zeros((), jnp.int32), mu, nu, nu_max, common.first_anchor())

    def make(params: Params, grads: PyTree, state: AdamState) -> tuple[PyTree, AdamState, Summary]:
        count = state.count + 1

        def columns(rate: jax.Array, decay: jax.Array, dtype: Any) -> tuple[Columns, Any]:
            found = {
                "decay": 0.0 if decoupled else decay,
                "shrink": 1 - rate * decay if decoupled else 1.0,
                "rate": rate / bias(decay1, count, dtype),
                "root": jax.lax.rsqrt(bias(decay2, count, dtype)),
                "keep": decay2,
                "rest": 1 - decay2,
                "take": 1 - decay1,
                "epsilon": eps,
            }
            return found, rate

        before = {StepRole.FIRST: state.mu, StepRole.SECOND: state.nu}
        if amsgrad:
            before[StepRole.MAXIMUM] = state.nu_max
        new, after, summary = common.make(step, params, grads, before, state.anchor, state.count, columns)
        mu, nu = after[StepRole.FIRST], after[StepRole.SECOND]
        return new, AdamState(count, mu, nu, after.get(StepRole.MAXIMUM), state.anchor), summary

    return Optimizer(init, make)
