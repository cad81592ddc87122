"""The penalty in plain jnp, to read and to fall back on. No native code, no custom differentiation rule.

    penalty            Σ_i ( l1 · Σ|x_i| + l2 · Σ x_i² )
    penalty_and_grad   the same, and l1 · sign(x_i) + 2 · l2 · x_i with sign(±0) = 0
    sums               Σ|x_i| and Σ x_i² for each leaf
    prox               S(x_i, step·l1) / (1 + 2·step·l2), S(x, t) = x - clip(x, -t, t)

These take a pytree and two scalars. `fused_penalty.jax` with `backend="reference"` adds masks, strengths for
each leaf, anchors and differentiation, and calls `launch` where another backend calls its kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._core.operations import Op
from ..._core.plan import BOTH, Plan
from ..._core.protocols import Launched
from ..._core.steps import Step as OptimizerStep
from ..elastic_net import displacement, wide, written
from ..step_formula import Stepped, stepped
from ..types import Params, PyTree, Scalar, Step

RUN = 16  # numbers in a row in float32, as `kRun` of kernels/elastic_net.h; then the sum is carried in two float32


def _add_pairs(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(high, low) + (high, low): the rounding error of the sum (Knuth's two-sum) goes to the low part."""
    high = a[0] + b[0]
    back = high - a[0]
    error = (a[0] - (high - back)) + (b[0] - back)
    # An infinite sum has no rounding error; inf - inf would make it NaN. Not jnp.where: its function, called inside
    # a reduction whose result nobody needs, crashes the compiler of jaxlib 0.10.2.
    return high, jax.lax.select(jnp.isfinite(high), error, jnp.zeros_like(error)) + (a[1] + b[1])


def accurate_sum(v: jax.Array) -> jax.Array:
    """Σv over the last axis, to about 1e-7 relative for values of one sign, without a wider type."""
    if v.dtype == jnp.float64:
        return jnp.sum(v, axis=-1)
    padding = [(0, 0)] * (v.ndim - 1) + [(0, -v.shape[-1] % RUN)]
    runs = jnp.sum(jnp.pad(v, padding).reshape(*v.shape[:-1], RUN, -1), axis=-2)
    zero = jnp.zeros((), v.dtype)
    high, low = jax.lax.reduce((runs, jnp.zeros_like(runs)), (zero, zero), _add_pairs, (runs.ndim - 1,))
    return high + low


@jax.jit
def row_sums(x: jax.Array) -> jax.Array:
    """(..., 2): Σ|x| and Σx² over the last axis, in float32 or wider."""
    x = wide(x)
    return jnp.stack([accurate_sum(jnp.abs(x)), accurate_sum(x * x)], axis=-1)


def sums(params: Params) -> tuple[jax.Array, jax.Array]:
    """Compute (Σ|x_i|, Σx_i²) of each leaf.

    Args:
      params: A pytree of floating arrays.

    Returns:
      Two arrays of shape (leaves,): float32, or float64 if the leaves are.

    Example:
      >>> from fused_penalty import reference
      >>> reference.sums({"w": jnp.array([1.0, -2.0])})[1].tolist()
      [5.0]
    """
    found = jnp.stack([row_sums(jnp.ravel(x)) for x in jax.tree.leaves(params)])
    return found[:, 0], found[:, 1]


def penalty(params: Params, l1: Scalar = 0.0, l2: Scalar = 0.0) -> jax.Array:
    """Compute Σ_i ( l1·Σ|x_i| + l2·Σx_i² ).

    Args:
      params: A pytree of floating arrays.
      l1, l2: Strengths for all leaves: numbers or 0-d arrays.

    Returns:
      A scalar: float32, or float64 if a leaf is.

    Example:
      >>> from fused_penalty import reference
      >>> float(reference.penalty([jnp.array([1.0, -2.0])], l1=1.0, l2=0.5))
      5.5
    """
    absolute, square = sums(params)
    first, second = accurate_sum(absolute), accurate_sum(square)
    return jnp.where(l1 == 0, 0, l1 * first) + jnp.where(l2 == 0, 0, l2 * second)


def penalty_and_grad(params: Params, l1: Scalar = 0.0, l2: Scalar = 0.0) -> tuple[jax.Array, PyTree]:
    """Compute the penalty and its gradient l1·sign(x_i) + 2·l2·x_i, with sign(±0) = 0.

    Args:
      params: A pytree of floating arrays.
      l1, l2: Strengths for all leaves: numbers or 0-d arrays.

    Returns:
      The scalar, and gradients like params: a pytree.

    Example:
      >>> from fused_penalty import reference
      >>> reference.penalty_and_grad([jnp.array([0.0, -2.0])], l1=1.0, l2=0.5)[1][0].tolist()
      [0.0, -3.0]
    """
    return penalty(params, l1, l2), _map(Op.GRADIENT, params, l1, l2)


def prox(params: Params, l1: Scalar = 0.0, l2: Scalar = 0.0, step: Step = 1.0) -> PyTree:
    """Make the proximal step of the penalty: S(x_i, step·l1) / (1 + 2·step·l2).

    Args:
      params: A pytree of floating arrays.
      l1, l2: Strengths for all leaves: numbers or 0-d arrays.
      step: The length of the step: a number or a 0-d array.

    Returns:
      A new pytree like params.

    Example:
      >>> from fused_penalty import reference
      >>> reference.prox([jnp.array([0.5, -2.0])], l1=1.0, l2=0.5)[0].tolist()
      [0.0, -0.5]
    """
    return _map(Op.PROX, params, l1, l2, step)


def _map(op: Op, params: Params, l1: Scalar, l2: Scalar, step: Step = 1.0) -> PyTree:
    a, b = op.coefficients(l1, l2, step)
    return jax.tree.map(lambda x: written(op, x, None, a, b, BOTH).astype(x.dtype), params)


# The backend: what fused_penalty.jax calls.


def _rows(plan: Plan, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Each leaf as (rows, size), minus its anchor where there are anchors."""
    n = len(plan.sizes)
    shapes = list(zip(plan.rows, plan.sizes, strict=True))
    found = [wide(x).reshape(s) for x, s in zip(arrays[:n], shapes, strict=True)]
    if len(arrays) == n:
        return found
    return [x - wide(a).reshape(x.shape) for x, a in zip(found, arrays[n:], strict=True)]


def _totals(plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """The sums (slots, 2) of leaves followed by their anchors, if any."""
    members: dict[int, list[jax.Array]] = {}  # leaves that share their slots
    for x, first in zip(_rows(plan, arrays), plan.slots, strict=True):
        members.setdefault(first, []).append(row_sums(x).astype(dtype))
    totals = [m[0] if len(m) == 1 else accurate_sum(jnp.stack(m, axis=-1)) for _, m in sorted(members.items())]
    return jnp.concatenate(totals)


def launch(
    op: Op, plan: Plan, coefficients: jax.Array | None, arrays: Sequence[jax.Array], dtype: Any, *, in_place: bool
) -> Launched:
    """Leaves, then their anchors, if any; `in_place` changes nothing here, since XLA itself reuses the memory of an
    operand that nobody needs any more."""
    totals = _stats(plan, arrays, dtype) if op.counts else (_totals(plan, arrays, dtype),)
    if coefficients is None:
        # The echo: a 1 that exists only once the sums do.
        totals, one = jax.lax.optimization_barrier((totals, jnp.float32(1)))
        return Launched(totals, one, ())
    return Launched(totals, None, _written(op, plan, coefficients, arrays))


def _written(op: Op, plan: Plan, coefficients: jax.Array, arrays: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    n, found = len(plan.sizes), []
    for i, (x, shape, first, terms) in enumerate(
        zip(arrays, zip(plan.rows, plan.sizes, strict=True), plan.slots, plan.terms, strict=False)
    ):
        anchor = arrays[n + i].reshape(shape) if len(arrays) > n else None
        rows = coefficients[first : first + shape[0]].astype(wide(x).dtype)
        new = written(op, x.reshape(shape), anchor, rows[:, :1], rows[:, 1:], terms)
        found.append(new.reshape(x.shape).astype(x.dtype))
    return tuple(found)


def _stats(plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(Σ|d|, Σd², max|d| (slots, 3), counts of zeros and of non-finite numbers (slots, 2))."""
    reals, counts = [], []
    integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
    for d in _rows(plan, arrays):
        largest = jnp.max(jnp.abs(d), axis=-1, initial=0)
        largest = jnp.where(jnp.isnan(d).any(axis=-1), jnp.nan, largest)  # XLA's maximum on CPU may lose a NaN
        reals.append(jnp.concatenate([row_sums(d), largest[:, None]], axis=-1).astype(dtype))
        counts.append(jnp.stack([jnp.sum(f, axis=-1, dtype=integer) for f in (d == 0, ~jnp.isfinite(d))], axis=-1))
    return jnp.concatenate(reals), jnp.concatenate(counts)


def step(step: OptimizerStep, plan: Plan, coefficients: jax.Array, arrays: Sequence[jax.Array], dtype: Any) -> Launched:
    """Leaf by leaf; see `_core.backends.JaxBackend`."""
    n = len(plan.sizes)
    lists = [arrays[i : i + n] for i in range(0, len(arrays), n)]
    leaves, *anchors = lists[: len(lists) - len(step.arrays)]
    others = lists[len(lists) - len(step.arrays) :]
    members: dict[int, list[tuple[jax.Array, jax.Array]]] = {}  # of leaves that share their slots
    written: list[list[jax.Array]] = [[] for _ in range(1 + len(step.written))]
    for i, (x, first, shape) in enumerate(
        zip(leaves, plan.slots, zip(plan.rows, plan.sizes, strict=True), strict=True)
    ):
        rows = coefficients[first : first + shape[0]]
        own = {role: others[k][i].reshape(shape) for k, role in enumerate(step.arrays)}
        anchor = anchors[0][i].reshape(shape) if anchors else None
        found = stepped(step, x.reshape(shape), anchor, own, rows[:, None])
        members.setdefault(first, []).append(_step_totals(x.reshape(shape), anchor, found, rows, dtype))
        new = [(found.x, x), *((found.state[role], others[step.arrays.index(role)][i]) for role in step.written)]
        for kind, (value, old) in zip(written, new, strict=True):
            kind.append(value.reshape(old.shape).astype(old.dtype))
    reals, counts = [], []
    for _, parts in sorted(members.items()):
        some_reals, some_counts = zip(*parts, strict=True)
        reals.append(accurate_sum(jnp.stack(some_reals, axis=-1)))
        counts.append(sum(some_counts))
    return Launched((jnp.concatenate(reals), jnp.concatenate(counts)), None, tuple(x for kind in written for x in kind))


def _step_totals(
    x: jax.Array, anchor: jax.Array | None, found: Stepped, coefficients: jax.Array, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """(reals (rows, 4), counts (rows, 2)) in the order of `_core.steps.COLUMNS`."""
    gradient = jnp.zeros_like(found.change) if found.gradient is None else found.gradient
    squares = [accurate_sum(v * v) for v in (gradient, found.change)]
    integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
    counts = [jnp.sum(f, axis=-1, dtype=integer) for f in (found.after == 0, ~jnp.isfinite(gradient))]
    made = coefficients[:, -1:] == 0  # not skipped
    reals = jnp.concatenate(
        [row_sums(displacement(x, anchor)), jnp.where(made, jnp.stack(squares, axis=-1), 0)], axis=-1
    )
    return reals.astype(dtype), jnp.where(made, jnp.stack(counts, axis=-1), 0)
