"""The penalty, its gradient and its proximal step: `penalty`, `penalty_and_grad`, `prox`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import backends
from .._core.operations import Op
from .._core.strengths import check_strength, l2_of
from . import calculus as core
from .params import Selection, is_array, is_numeric, select
from .placement import explained
from .strengths import scalar
from .types import Anchor, Mask, Params, PyTree, Step, Strength

__all__ = ["penalty", "penalty_and_grad", "prox"]


def penalty(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    weight_decay: Strength | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    backend: str | None = None,
) -> jax.Array:
    """Compute the elastic-net penalty P = Σ_i ( l1_i·Σ|x_i| + l2_i·Σx_i² ), in one launch over all leaves.

    Differentiable to any order in params, strengths and anchor; sign(±0) = 0. Works under jit, grad, jvp,
    vmap, scan and checkpoint. Under jit with donated params it costs no copy of the model.

    Leaves that are sharded over a mesh stay where they are: each device launches once on its own parts, then one
    all-reduce adds the sums, and a leaf that several devices hold counts once. Inside `shard_map` it is the penalty of
    the local parts, as it would be if written in jnp: add it over the axes with `jax.lax.psum`.

    Args:
      params: A pytree of arrays (numpy arrays and floats too) of any shapes, of dtype float16, bfloat16, float32,
        float64, float8_e4m3fn or float8_e5m2. Of the Variables of flax nnx (in a Module, a State or any tree) only
        `nnx.Param`s count, a shared one once; the rest is treated as masked. For a linen Module give
        `variables["params"]`.
      l1, l2: Strengths >= 0: a scalar, a 0-d array (may be traced, scheduled or learned), a prefix tree of
        these, or a rule: `fused_penalty.by_path`, `by_leaf`, `by_type`, `no_decay_on_norms_and_biases`. A static 0
        removes its term from value and gradient. Arrays are not read on the host: a negative strength or a NaN gives
        what IEEE arithmetic gives.
      weight_decay: In place of l2, with the ½ that its name implies elsewhere: l2 = weight_decay / 2.
      mask: A bool, a prefix tree of bools, a rule with bools, or a function of params that returns one of these; False
        leaves a leaf out. (A Module of bools, which may be callable, is a tree.)
      anchor: A pytree like params; the penalty is then that of x - anchor. Anchor, mask and strengths pair with params
        by structure, or by name where the containers differ only in type, as a dict and a FrozenDict do.
      backend: "cuda", "cpu", "reference" or None, which chooses the best one for the platform compiled for.

    Returns:
      A scalar: float32, or float64 if any selected leaf is float64. 0.0 if no leaf is selected.

    Raises:
      TypeError: A selected leaf is not an array of one of these dtypes, or a strength or mask entry has a wrong type.
      ValueError: A static strength is negative or not finite, l2 and weight_decay are both given, trees do not match,
        the backend is unknown, leaves lie on different meshes or devices, or params are all variables of a linen Module
        and there is no mask.
      RuntimeError: The backend is not available; `fused_penalty.backends()` says why.

    Source: Zou & Hastie, "Regularization and variable selection via the elastic net", 2005 (without the ½).

    Example:
      >>> import jax.numpy as jnp
      >>> from fused_penalty.jax import penalty
      >>> params = {"w": jnp.array([0.5, -1.2, 0.8]), "b": jnp.array([0.2, -0.1])}
      >>> round(float(penalty(params, l1={"w": 0.01, "b": 0.005}, l2={"w": 0.001, "b": 0.0005})), 6)
      0.028855
    """
    s = select(params, l1, l2_of(l2, weight_decay), mask, anchor)
    backend = backends.requested("jax", backend)
    if not s.leaves:
        return scalar(0.0, np.float32)
    spec, strengths = _spec(s, backend)
    with explained(s):
        return core.penalty(spec, *strengths, s.leaves, s.anchors)


def penalty_and_grad(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    weight_decay: Strength | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    backend: str | None = None,
) -> tuple[jax.Array, PyTree]:
    """Compute the penalty and its gradient l1_i·sign(x_i) + 2·l2_i·x_i in one launch: one read, one write.

    Args:
      params: As in `penalty`, but float8 leaves, whose gradients cannot be written, must be masked.
      l1, l2, weight_decay, mask, anchor, backend: As in `penalty`.

    Returns:
      (P, gradients): gradients have the structure, shapes and dtypes of params; each element is computed in
      float32 or wider and rounded once. Leaves that do not count get zeros (float0 zeros if they are not floating, as
      `jax.grad(allow_int=True)` gives; None if they are not arrays, as `equinox.filter_grad` gives).

    Raises:
      TypeError: A selected leaf is float8, or as in `penalty`.
      ValueError, RuntimeError: As in `penalty`.

    Example:
      >>> import jax.numpy as jnp
      >>> from fused_penalty.jax import penalty_and_grad
      >>> value, grads = penalty_and_grad([jnp.array([0.0, -2.0])], l1=1.0, l2=0.5)
      >>> float(value), grads[0].tolist()
      (4.0, [0.0, -3.0])
    """
    s = select(params, l1, l2_of(l2, weight_decay), mask, anchor)
    s.check_writable()
    backend = backends.requested("jax", backend)
    gradients: list[Any] = []
    value = scalar(0.0, np.float32)
    if s.leaves:
        spec, strengths = _spec(s, backend)
        with explained(s):
            value, *gradients = core.penalty_and_grad(spec, *strengths, s.leaves, s.anchors)
    chosen = set(s.index)
    return value, s.tree(gradients, [None if i in chosen else _zero_gradient(x) for i, x in enumerate(s.flat.leaves)])


def prox(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    weight_decay: Strength | None = None,
    step: Step = 1.0,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    backend: str | None = None,
) -> PyTree:
    """Make the proximal step of the penalty, in one launch: S(x, step·l1) / (1 + 2·step·l2) for each leaf.

    That is argmin_y l1‖y‖₁ + l2‖y‖₂² + ‖y - x‖²/(2·step), with S(x, t) = x - clip(x, -t, t): soft-thresholding, which
    gives exact zeros. With an anchor a: a + S(x - a, step·l1) / (1 + 2·step·l2). Under jit each leaf is updated in
    place if nothing else needs it (donated params: no copy). Differentiable; works under vmap. On CPU XLA flushes
    subnormal numbers of bfloat16, float32 and float64 to zero.

    Args:
      params: As in `penalty`, but float8 leaves, which cannot be written, must be masked.
      l1, l2, weight_decay, mask, anchor, backend: As in `penalty`.
      step: The length of the step, >= 0: a float or a 0-d array, possibly traced. Arrays are not read on the host: if
        step or a strength is an array that is negative or NaN, the result is NaN.

    Returns:
      A pytree like params; each element is computed in float32 or wider and rounded once. Leaves that do not count are
      returned as they are.

    Raises:
      TypeError: A selected leaf is float8, step is not a number, or as in `penalty`.
      ValueError: A static step is negative or not finite, or as in `penalty`.
      RuntimeError: As in `penalty`.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, section 6.5.

    Example:
      >>> import jax.numpy as jnp
      >>> from fused_penalty.jax import prox
      >>> prox([jnp.array([0.5, -2.0])], l1=1.0, l2=0.5)[0].tolist()
      [0.0, -0.5]
    """
    s = select(params, l1, l2_of(l2, weight_decay), mask, anchor)
    s.check_writable()
    step = check_strength("step", step, is_array)
    backend = backends.requested("jax", backend)
    new: Sequence[jax.Array] = ()
    if s.leaves:
        spec, strengths = _spec(s, backend)
        length = scalar(step, core.launch.result_dtype(s.leaves))
        in_place = any(isinstance(x, jax.core.Tracer) for x in s.leaves)
        with explained(s):
            new = core.new_leaves(Op.PROX, spec, in_place, length, *strengths, s.leaves, s.anchors)
    return s.tree(new, s.flat.leaves)


def _spec(s: Selection, backend: str | None) -> tuple[core.Spec, tuple[tuple[jax.Array, ...], ...]]:
    dtype = core.launch.result_dtype(s.leaves)
    strengths = tuple(tuple(scalar(v, dtype) for v in values) for values in (s.groups.l1, s.groups.l2))
    return core.Spec(backend, s.groups.of_leaf, s.groups.terms), strengths


def _zero_gradient(leaf: Any) -> Any:
    """The gradient of a leaf that does not count; None if it is not an array at all but, say, a function."""
    if not is_numeric(leaf):
        return None
    if isinstance(leaf, float) or jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
        return _zeros(leaf)
    return np.zeros(np.shape(leaf), jax.dtypes.float0)


def _zeros(leaf: Any) -> jax.Array:
    """`jnp.zeros_like` without a transfer of its zero, which `jax.transfer_guard("disallow")` would refuse."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return jnp.zeros_like(leaf)
    return _zeros_at(leaf.sharding)(leaf)


@functools.lru_cache(maxsize=64)
def _zeros_at(sharding: jax.sharding.Sharding) -> Any:
    return jax.jit(jnp.zeros_like, out_shardings=sharding)
