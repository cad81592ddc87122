"""optax's optimizers with the penalty in their own step: `proximal_sgd`, `proximal_adamw`, `proximal_adagrad`.

Each is optax's optimizer, its state and its arithmetic untouched, and the proximal step in the metric in which that
optimizer moves: an element of step size η gets the threshold η·l1. So a weight rests at 0 exactly where the data
loss pulls less than l1, |∂f| <= l1, which is the optimality condition of the penalised loss, and l1 means the same as
in `penalty`. A euclidean proximal step after Adam has one threshold for all elements and ends somewhere else
(docs/l1_and_adam.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from .._core.errors import bad, describe
from .._core.rules import Rule
from ..jax.elastic_net import wide
from ..jax.params import mask_of
from ..jax.schedules import Schedule, rate_at
from ..jax.types import Anchor, Mask, PyTree, Scalar, Strength
from .leaves import Penalty
from .prox import prox_updates
from .state import following
from .trees import given

Metric: TypeAlias = Literal["adaptive", "euclidean"]
"""In which the proximal step of `proximal_adamw` is one: Adam's own, or that of a plain gradient step."""

DType: TypeAlias = Any
"""What `jnp.dtype` takes; None is the dtype of params."""


def proximal_sgd(
    learning_rate: Scalar | Schedule,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: DType | None = None,
    *,
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule = 0.0,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
) -> optax.GradientTransformation:
    """`optax.sgd` with the penalty's proximal step at the end of each step: proximal gradient descent (ISTA).

        b ← μ·b + g;    u = b, or g + μ·b with nesterov;    η = lr/(1 - μ)        without momentum u = g and μ = 0
        θ ← anchor + S(θ - lr·u - anchor, η·l1) / (1 + 2·η·l2)        S(y, t) = sign(y)·max(|y| - t, 0)

    The step size is η, since b adds up 1/(1 - μ) gradients: lr·b = η·(mean of gradients). With lr in its place training
    would minimise loss + (1 - μ)·penalty, with a tenth of the penalty where μ is 0.9.

    Args:
      learning_rate, momentum, nesterov, accumulator_dtype: As in `optax.sgd`. learning_rate is a float, a 0-d array
        or a schedule.
      l1, l2, mask, anchor: As in `proximal`.

    Returns:
      An `optax.GradientTransformation`. Its state is the pair (state of `optax.sgd`, PenaltyState), so
      `optax.tree.get(state, "trace")` finds the momentum. Where a leaf's strengths are both statically 0, or the mask
      leaves it out, its updates are those of `optax.sgd`, bit for bit.

    Raises:
      TypeError: (from `update`) As in `proximal`.
      ValueError: (from `init` and `update`) As in `proximal`.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, sections 4.2 and 6.5; with momentum Yun, Lozano & Yang, arXiv
    2007.07484, whose momentum is the mean.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fused_penalty.optax import proximal_sgd
      >>> optimizer = proximal_sgd(0.5, l1=1.0)
      >>> params = {"w": jnp.array([2.0, 0.25, -4.0])}
      >>> updates, _ = optimizer.update({"w": jnp.zeros(3)}, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [1.5, 0.0, -3.5]
    """
    base = optax.sgd(learning_rate, momentum, nesterov, accumulator_dtype)
    gradients = 1.0 if momentum is None else 1 / (1 - momentum)
    return _ended(base, Penalty(l1, l2, mask, anchor), learning_rate, lambda state: None, gradients)


def proximal_adamw(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: Scalar | Schedule = 1e-4,
    *,
    nesterov: bool = False,
    amsgrad: bool = False,
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule = 0.0,
    mask: Mask | None = None,
    weight_decay_mask: Mask | None = None,
    anchor: Anchor | None = None,
    metric: Metric = "adaptive",
) -> optax.GradientTransformation:
    """`optax.adamw` with the penalty's proximal step in Adam's own metric: exact zeros where they belong.

        z = (1 - lr·weight_decay)·θ - lr·m̂/D        D = √(v̂ + eps_root) + eps, v̂ the running maximum with amsgrad
        θ ← anchor + S(z - anchor, lr·l1/D) / (1 + 2·lr·l2/D)        S(y, t) = sign(y)·max(|y| - t, 0)

    elementwise, that is argmin_θ l1‖θ - anchor‖₁ + l2‖θ - anchor‖² + Σ D·(θ - z)²/(2·lr). It is jnp that XLA fuses
    into the update: no launch, no buffer.

    Where v is 0, an element has never had a gradient (a row of an embedding whose word has not occurred yet). D is eps
    there and says nothing about the element, and lr·l1/eps, as 2·lr·l2/eps, is so large that it would wipe out a fresh
    row in one step. So both terms leave such elements alone until their first gradient; `weight_decay` applies to them,
    as in `optax.adamw`. An element that has had a gradient once and has none any more is drawn to the anchor, the
    faster the more v̂ decays.

    Args:
      learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov: As in `optax.adamw`. learning_rate is a float, a 0-d
        array or a schedule.
      weight_decay: AdamW's own decoupled decay of θ, with optax's default, which is not part of the objective: not the
        `weight_decay` of `proximal`, another name for its l2. With 0 training minimises loss + penalty.
      amsgrad: The running maximum of v̂, as in `optax.amsgrad`. optax has no amsgrad with nesterov.
      l1, l2, mask, anchor: As in `proximal`. mask is the penalty's; `optax.adamw(mask=)` is weight_decay_mask here.
      weight_decay_mask: Which leaves weight_decay decays, as the mask of `optax.adamw`, or a rule.
      metric: "adaptive", as above, or "euclidean", D = 1 in the second line: `optax.chain(optax.adamw(...),
        proximal(...))`. Its fixed point is not the minimum of the penalised loss; its L2 part alone is AdamProx.

    Returns:
      An `optax.GradientTransformation`. Its state is the pair (state of `optax.adamw`, PenaltyState): checkpoints of
      `optax.adamw` are its first half, and `optax.tree.get(state, "nu")` works. Where a leaf's strengths are both
      statically 0, or the mask leaves it out, its updates are those of `optax.adamw`, bit for bit.

    Raises:
      TypeError: (from `update`) As in `proximal`.
      ValueError: Another metric, or amsgrad with nesterov; (from `init` and `update`) as in `proximal`.

    Source: Yun, Lozano & Yang, "Adaptive proximal gradient methods for structured neural networks", NeurIPS 2021,
    arXiv 2007.07484; Zhuang et al., arXiv 2202.00089 (AdamProx); Reddi et al., 2018 (amsgrad).

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fused_penalty.optax import proximal_adamw
      >>> optimizer = proximal_adamw(0.5, weight_decay=0.0, l1=1.0)
      >>> params = {"w": jnp.array([2.0, 0.25, -4.0])}
      >>> grads = {"w": jnp.array([1.0, 0.5, 0.0])}
      >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].round(4).tolist()  # v = 0: no gradient yet, so no penalty
      [1.0, 0.0, -4.0]
      >>> bool((optax.tree.get(state, "nu")["w"] == state[0][0].nu["w"]).all())
      True
    """
    if metric not in ("adaptive", "euclidean"):
        raise bad(ValueError, "metric", f"{describe(metric)} is unknown", 'Use "adaptive" or "euclidean"')
    if amsgrad and nesterov:
        raise bad(ValueError, "amsgrad", "it is given with nesterov", "Give one of them, as in optax")
    if amsgrad:
        moments = optax.scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype)
    else:
        moments = optax.scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    decayed = partial(mask_of, weight_decay_mask) if isinstance(weight_decay_mask, Rule) else weight_decay_mask
    base = optax.chain(
        moments,
        optax.add_decayed_weights(weight_decay, decayed),
        optax.scale_by_learning_rate(learning_rate),
    )

    def scales(state: Any) -> PyTree | None:
        if metric == "euclidean":
            return None
        adam = state[0]
        v = adam.nu_max if amsgrad else optax.tree.bias_correction(adam.nu, b2, adam.count)
        # the denominator as optax computes it, so that XLA finds that it has it already
        return jax.tree.map(lambda v: jnp.where(v == 0, 0, 1 / wide(jnp.sqrt(v + eps_root) + eps)), v)

    return _ended(base, Penalty(l1, l2, mask, anchor), learning_rate, scales)


def proximal_adagrad(
    learning_rate: Scalar | Schedule,
    initial_accumulator_value: Scalar = 0.1,
    eps: Scalar = 1e-7,
    *,
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule = 0.0,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
) -> optax.GradientTransformation:
    """`optax.adagrad` with the penalty's proximal step in Adagrad's own metric.

        s ← s + g²;    η = lr/√(s + eps)
        θ ← anchor + S(θ - η·g - anchor, η·l1) / (1 + 2·η·l2)        S(y, t) = sign(y)·max(|y| - t, 0)

    elementwise. Where s is 0 (which needs initial_accumulator_value=0 and no gradient so far) η is 0, as in optax, and
    the element is left alone. With the default every element has a step size from the start, and the penalty pulls at
    it from the first step on.

    Args:
      learning_rate, initial_accumulator_value, eps: As in `optax.adagrad`. learning_rate is a float, a 0-d array or a
        schedule.
      l1, l2, mask, anchor: As in `proximal`.

    Returns:
      An `optax.GradientTransformation`. Its state is the pair (state of `optax.adagrad`, PenaltyState), so
      `optax.tree.get(state, "sum_of_squares")` works. Where a leaf's strengths are both statically 0, or the mask
      leaves it out, its updates are those of `optax.adagrad`, bit for bit.

    Raises:
      TypeError: (from `update`) As in `proximal`.
      ValueError: (from `init` and `update`) As in `proximal`.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods", JMLR 2011, section 5 (composite mirror descent);
    Duchi & Singer, JMLR 2009 (FOBOS). TensorFlow's ProximalAdagrad has the same closed form.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fused_penalty.optax import proximal_adagrad
      >>> optimizer = proximal_adagrad(0.5, initial_accumulator_value=0.25, eps=0.0, l1=0.5)
      >>> params = {"w": jnp.array([2.0, 0.25, -4.0])}
      >>> updates, _ = optimizer.update({"w": jnp.zeros(3)}, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [1.5, 0.0, -3.5]
    """
    base = optax.adagrad(learning_rate, initial_accumulator_value, eps)

    def scales(state: Any) -> PyTree:
        return jax.tree.map(lambda s: jnp.where(s > 0, wide(jax.lax.rsqrt(s + eps)), 0), state[0].sum_of_squares)

    return _ended(base, Penalty(l1, l2, mask, anchor), learning_rate, scales)


def _ended(
    base: optax.GradientTransformation,
    penalty: Penalty,
    learning_rate: Scalar | Schedule,
    scales: Callable[[Any], PyTree | None],
    gradients: Scalar = 1.0,
) -> optax.GradientTransformation:
    """An optimizer of optax, a chain that ends in its learning rate, and then the proximal step. `scales` finds each
    element's step size, as a share of the learning rate, in the optimizer's new state. `gradients`: how many of them
    one update adds up."""

    def init(params: PyTree) -> Any:
        return base.init(params), penalty.init(params)

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> Any:
        before, own = state
        leaves = penalty.of_leaves(updates, own, given(params))
        # by optax's own count: the rate with which it scales this very step, also where its state is a checkpoint's
        rate = rate_at(learning_rate, before[-1].count if callable(learning_rate) else own.count)
        updates, after = base.update(updates, before, params)
        return prox_updates(updates, leaves, params, rate * gradients, scales(after)), (after, following(own))

    return optax.GradientTransformation(init, update)
