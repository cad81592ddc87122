"""The penalty as optax transformations: `add_penalty_grads` for the gradient, `proximal` for exact zeros.

    optax.chain(add_penalty_grads(l1=1e-5, l2=1e-4), optax.adam(1e-3))    as if the penalty were in the loss
    optax.chain(optax.scale_by_adam(), add_penalty_grads(l2=1e-4), optax.scale_by_learning_rate(1e-3))    as AdamW
    optax.chain(optax.sgd(0.1), proximal(l1=1e-4, learning_rate=0.1))    proximal descent

A bare callable is a schedule, as everywhere in optax; rules over paths and leaves are objects (`by_path`, `by_leaf`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ._core.errors import bad, bad_anchor
from ._core.norms import check_max_norm
from ._core.operations import Op
from ._core.rules import ByPath
from ._core.strengths import check_strength
from .jax.calculus import unfused
from .jax.elastic_net import wide
from .jax.norms import global_norm
from .jax.params import Selection, is_array, is_numeric, select
from .jax.strengths import scalar
from .jax.types import Anchor, Mask, PyTree, Scalar, Strength

Schedule: TypeAlias = Callable[[jax.Array], Scalar]
"""From the number of steps taken (int32, from 0) to a strength or a learning rate."""

__all__ = ["PenaltyState", "add_penalty_grads", "clip_by_global_norm", "proximal"]


class PenaltyState(NamedTuple):
    """The state of both transformations.

    Attributes:
      count: The number of steps taken, with which schedules are called: int32, 0-d.
      anchor: A copy of the anchor, or None.
    """

    count: jax.Array  # type: ignore[assignment]  # optax's name for it; a tuple has a method count
    anchor: Anchor | None


def add_penalty_grads(
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule = 0.0,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
) -> optax.GradientTransformation:
    """Add the penalty's gradient to the updates: g_i ← g_i + l1_i·sign(d_i) + 2·l2_i·d_i, d = x - anchor.

    With l1 = 0 and l2 = wd / 2 it is `optax.add_decayed_weights(wd)`; before the optimizer it is the gradient of
    the penalty, after one and before the learning rate it is decoupled decay. It is elementwise jnp that XLA fuses into
    the update: no launch, no buffer. It does not compute the penalty's value; to log it, put
    `fused_penalty.jax.penalty` into the loss instead.

    Args:
      l1, l2: Strengths as in `fused_penalty.jax.penalty`; a callable, alone, in a tree or in `by_path`, is a schedule
        from the step count (from 0) to a strength.
      mask: As in `fused_penalty.jax.penalty` (and optax); updates of leaves that are left out pass unchanged.
      anchor: A pytree like params. `init` copies it into the state, so that jit does not take it for a constant.

    Returns:
      An `optax.GradientTransformation`. Updates keep their dtype (or widen, where params are wider, as in optax);
      the sum is computed in float32 or wider and rounded once. None and `optax.MaskedNode` pass
      unchanged.

    Raises:
      TypeError: (from `init` and `update`) As in `fused_penalty.jax.penalty_and_grad`: float8 leaves must be masked.
      ValueError: (from `init` and `update`) As in `fused_penalty.jax.penalty`, or `update` gets no params.

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

    def update(updates: PyTree, state: PenaltyState, params: PyTree | None = None) -> tuple[PyTree, PenaltyState]:
        among = _updated(updates, _given(params))
        s = select(params, _at(l1, state.count), _at(l2, state.count), mask, state.anchor, among=among)
        gradients = _written(Op.GRADIENT, s, 1.0)
        return _map(_add, updates, _tree(s, gradients), params), _next(state)

    return optax.GradientTransformation(lambda params: _first(params, anchor), update)


def proximal(
    l1: Strength | Schedule = 0.0,
    l2: Strength | Schedule = 0.0,
    learning_rate: Scalar | Schedule | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
) -> optax.GradientTransformation:
    """End a step with the penalty's proximal step, so that weights become exactly zero. Last in a chain.

        y = params + updates;    new params = S(y, lr·l1) / (1 + 2·lr·l2),    S(y, t) = sign(y)·max(|y| - t, 0)

    that is argmin_z l1‖z‖₁ + l2‖z‖² + ‖z - y‖²/(2·lr). The subgradient of `add_penalty_grads` oscillates around zero;
    this step lands there and stays: `optax.apply_updates` gives exact zeros. It is elementwise jnp, too: a kernel
    (`fused_penalty.jax.prox`) would need all of params + updates at once, a buffer of the model's size.

    Args:
      l1, l2, mask, anchor: As in `add_penalty_grads`. With an anchor it is x - anchor that becomes zero, up to the
        rounding of the sum in `apply_updates`.
      learning_rate: The step size, that of the optimizer before: a float, a 0-d array or a schedule. Required. Arrays
        are not read on the host: if it or a strength is an array that is negative or NaN, the updates are NaN.

    Returns:
      An `optax.GradientTransformation` whose updates are new params - params. What comes after it in a chain would
      change them.

    Raises:
      TypeError: learning_rate is missing; (from `init` and `update`) as in `fused_penalty.jax.prox`, whose step is the
        learning rate.
      ValueError: (from `init` and `update`) As in `fused_penalty.jax.prox`, or `update` gets no params.

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

    def update(updates: PyTree, state: PenaltyState, params: PyTree | None = None) -> tuple[PyTree, PenaltyState]:
        among = _updated(updates, _given(params))
        moved = _map(_moved, updates, params, absent=lambda p: p)
        s = select(moved, _at(l1, state.count), _at(l2, state.count), mask, state.anchor, among=among)
        step = check_strength("learning_rate", _at(learning_rate, state.count), is_array)
        new = _written(Op.PROX, s, step)
        return _map(_difference, updates, _tree(s, new), params), _next(state)

    return optax.GradientTransformation(lambda params: _first(params, anchor), update)


def _given(params: PyTree | None) -> PyTree:
    if params is None:
        raise ValueError(
            "You are using a transformation that requires the current value of parameters, but you are not passing "
            "`params` when calling `update`."
        )
    return params


def _at(value: Any, count: jax.Array) -> Any:
    """The value at this step: schedules are called, also in trees and in by_path."""
    if isinstance(value, ByPath):
        return ByPath(tuple((glob, _at(v, count)) for glob, v in value.patterns))
    return jax.tree.map(lambda v: v(count) if callable(v) else v, value)


def _written(op: Op, s: Selection, step: Any) -> list[jax.Array]:
    s.check_writable()
    return unfused(op, s.groups.of_leaf, s.groups.terms, step, s.groups.l1, s.groups.l2, s.leaves, s.anchors)


def _updated(updates: PyTree, params: PyTree) -> list[bool]:
    """Which leaves of params get an update; where an update is None, params may hold anything."""
    flags = _map(lambda g, p: True, updates, params, absent=lambda p: jax.tree.map(lambda _: False, p))
    return jax.tree.leaves(flags)


def _tree(s: Selection, values: Sequence[jax.Array]) -> PyTree:
    """A tree like params: the values of the selected leaves, and None elsewhere."""
    return s.tree(values, [None] * len(s.flat.leaves))


def _map(
    f: Callable[..., Any], updates: PyTree, *trees: PyTree, absent: Callable[..., Any] = lambda *trees: None
) -> PyTree:
    """Map f over the updates; where one is None, the other trees may hold any subtree, which `absent` maps."""

    def each(g: Any, *x: Any) -> Any:
        return absent(*x) if g is None else f(g, *x)

    return jax.tree.map(each, updates, *trees, is_leaf=lambda g: g is None)


def _joined(*values: Any) -> Any:
    """The dtype that JAX's arithmetic gives by default, also under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def _moved(update: jax.Array, param: Any) -> jax.Array:
    return optax.apply_updates(param, update)


def _add(update: jax.Array, gradient: jax.Array | None, param: Any) -> jax.Array:
    if gradient is None:  # masked
        return update
    total = update.astype(_joined(update, gradient)) + gradient
    return total.astype(_joined(update, param))


def _difference(update: jax.Array, new: jax.Array | None, param: Any) -> jax.Array:
    if new is None:  # masked
        return update
    return (new - jnp.asarray(param).astype(new.dtype)).astype(_joined(update, param))


def _first(params: PyTree, anchor: PyTree | None) -> PenaltyState:
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


def _next(state: PenaltyState) -> PenaltyState:
    return state._replace(count=optax.safe_increment(state.count))


def clip_by_global_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Scale the updates so that their global norm is at most max_norm: `optax.clip_by_global_norm`, in one launch.

        g ← g where norm < max_norm, else g / norm · max_norm,    norm = √Σg² over all leaves

    The launch is for the norm; the scaling is elementwise jnp that XLA fuses into what uses the updates. Values are
    optax's, to rounding; updates of 16 bits are scaled in float32 and rounded once. As there, a norm that is NaN makes
    all updates NaN.

    Args:
      max_norm: A float >= 0, or a 0-d array, possibly traced.

    Returns:
      An `optax.GradientTransformation` without state (`optax.EmptyState`). Updates keep their dtypes; None and
      `optax.MaskedNode` pass unchanged.

    Raises:
      TypeError: max_norm is not a number; (from `update`) an update is not an array of float16, bfloat16, float32,
        float64, float8_e4m3fn or float8_e5m2.
      ValueError: max_norm is negative or NaN; (from `update`) as in `fused_penalty.jax.penalty`.

    Source: `optax.clip_by_global_norm`; Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural
    networks", 2013.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fused_penalty.optax import clip_by_global_norm
      >>> optimizer = optax.chain(clip_by_global_norm(2.5), optax.sgd(1.0))
      >>> params = {"w": jnp.zeros(2)}
      >>> updates, _ = optimizer.update({"w": jnp.array([3.0, -4.0])}, optimizer.init(params), params)
      >>> updates["w"].tolist()
      [-1.5, 2.0]
    """
    limit = check_max_norm(max_norm, is_array)

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        norm = global_norm(jax.tree.leaves(updates))  # of every leaf, as in optax, not of nnx's Params alone
        largest = scalar(limit, norm.dtype)
        is_small = norm < largest

        def clip(t: Any) -> jax.Array:
            t = jnp.asarray(t)
            d = wide(t)
            clipped = d / norm.astype(d.dtype) * largest.astype(d.dtype)
            return jnp.where(is_small, t, clipped.astype(t.dtype))

        return jax.tree.map(clip, updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)
