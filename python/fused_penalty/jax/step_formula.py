"""One element's step of an optimizer with the penalty in it, in jnp: the twin of kernels/step_formula.h.

Elementwise and differentiable; the reference backend computes with these lines, and the calculus differentiates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core.steps import COEFFICIENTS, Step, StepRole
from .elastic_net import clip, displacement, wide

Arrays = Mapping[StepRole, jax.Array]


class Stepped(NamedTuple):
    """What a step makes of a leaf, in float32 or wider: the new leaf and the new state; and what is counted over it."""

    x: jax.Array
    state: dict[StepRole, jax.Array]
    change: jax.Array
    after: jax.Array  # x - anchor after the step
    gradient: jax.Array | None  # as the optimizer is given it


def stepped(step: Step, x: jax.Array, anchor: jax.Array | None, arrays: Arrays, coefficients: jax.Array) -> Stepped:
    """`coefficients` (..., len(COEFFICIENTS)), of which each broadcasts against x."""
    d = displacement(x, anchor)
    start = wide(x)
    columns = jnp.moveaxis(coefficients, -1, 0)
    c = SimpleNamespace(**{name: columns[i].astype(d.dtype) for i, name in enumerate(COEFFICIENTS)})
    inverse = (1 / (1 + columns[COEFFICIENTS.index("pull")])).astype(d.dtype)
    old = {role: wide(a) for role, a in arrays.items()}
    found: dict[StepRole, jax.Array] = {}
    gradient, along, second, z = None, None, old.get(StepRole.SECOND), start
    if StepRole.GRADIENT in old:
        gradient = c.scale * old[StepRole.GRADIENT]
        along = _seen_gradient(start, d, gradient, c)
    if step is Step.MOMENTUM:
        momentum = found[StepRole.FIRST] = c.keep * old[StepRole.FIRST] + c.take * along
        along = jnp.where(c.look != 0, along + c.look * momentum, momentum)
    elif along is not None and second is not None:
        first = old[StepRole.FIRST]
        first = found[StepRole.FIRST] = first + c.take * (along - first)
        second = found[StepRole.SECOND] = c.keep * second + c.rest * along * along
        if step is Step.AMSGRAD:
            second = found[StepRole.MAXIMUM] = _larger(old[StepRole.MAXIMUM], second)
        along = first * _reciprocal(second, c)
    if along is not None:
        z = c.shrink * start - c.rate * along
    origin = jnp.zeros_like(d) if anchor is None else wide(anchor)
    after = z - origin
    pulled = (after - clip(after, c.threshold)) * inverse
    if second is not None:
        reciprocal = _reciprocal(second, c)
        inside = (after - clip(after, c.threshold * reciprocal)) / (1 + c.pull * reciprocal)
        pulled = jnp.where(c.metric != 0, jnp.where(second == 0, after, inside), pulled)
    active = (c.threshold != 0) | (c.pull != 0)
    new = jnp.where(active, origin + pulled, z)
    change = jnp.where(c.skip != 0, 0, new - start)
    after = jnp.where(active, pulled, after)
    kept = {role: jnp.where(c.skip != 0, old[role], value) for role, value in found.items()}
    return Stepped(jnp.where(c.skip != 0, start, new), kept, change, after, gradient)


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The larger, NaN if either is; XLA's maximum on CPU may lose a NaN."""
    return jnp.where((a > b) | (a != a), a, b)


def _reciprocal(second: jax.Array, c: SimpleNamespace) -> jax.Array:
    """1 / (root·√v + epsilon), with derivative 0 at v = 0, where that of the root is infinite."""
    none = second == 0
    root = jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, second)))
    return 1 / (c.root * root + c.epsilon)


def _seen_gradient(x: jax.Array, d: jax.Array, gradient: jax.Array, c: SimpleNamespace) -> jax.Array:
    u = gradient
    for strength, direction in ((c.l1, jnp.sign(d)), (c.l2, d), (c.decay, x)):
        u = jnp.where(strength != 0, u + strength * direction, u)  # not 0·d, which is NaN for an infinite d
    return u
