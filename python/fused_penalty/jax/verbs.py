"""The verbs: `penalty`, `penalty_and_grad`, `sums`, `stats`, `prox`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import backends
from .._core.plan import BOTH
from .._core.strengths import check_strength
from . import calculus as core
from .params import Selection, is_array, is_numeric, select
from .placement import explained
from .strengths import scalar

PyTree = Any
__all__ = ["Stats", "Sums", "penalty", "penalty_and_grad", "prox", "stats", "sums"]


class Sums(NamedTuple):
    """Σ|x| and Σx² of each selected leaf, shape (n,) each, and the leaves' dotted paths."""

    abs: jax.Array
    square: jax.Array
    paths: tuple[str, ...]


class Stats(NamedTuple):
    """Of each selected leaf: Σ|x|, Σx², max|x|, zeros, non-finite numbers, size; shape (n,) each. And the paths."""

    abs: jax.Array
    square: jax.Array
    max: jax.Array
    zeros: jax.Array  # int32, at most 2³¹ - 1; int64 where a leaf is float64. So is the next
    nonfinite: jax.Array
    size: tuple[int, ...]
    paths: tuple[str, ...]


def penalty(
    params: PyTree,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    mask: Any = None,
    anchor: PyTree | None = None,
    backend: str | None = None,
) -> jax.Array:
    """The elastic-net penalty P = Σ_i ( l1_i·Σ|x_i| + l2_i·Σx_i² ), in one launch over all leaves.

    Differentiable to any order in params, strengths and anchor; sign(±0) = 0. Works under jit, grad, jvp,
    vmap, scan and checkpoint. Under jit with donated params it costs no copy of the model.

    Leaves that are sharded over a mesh stay where they are: each device launches once on its own parts, then one
    all-reduce adds the sums, and a leaf that several devices hold counts once. Inside `shard_map` it is the penalty of
    the local parts, as jnp's would be: add it over the axes with `jax.lax.psum`.

    Args:
      params: a pytree of float16, bfloat16, float32 or float64 arrays (numpy arrays and floats too), any shapes. Of the
        Variables of flax nnx (in a Module, a State or any tree) those that are an `nnx.Param` count, a shared one once;
        the rest is treated as if it were masked. The variables of a linen Module: give `variables["params"]`.
      l1, l2: strengths >= 0: a scalar, a 0-d array (may be traced, scheduled or learned), a prefix tree of
        these, `fused_penalty.by_path` or `by_leaf`. A static 0 removes its term from value and gradient. An array is
        not read on the host: a negative one or a NaN gives what IEEE arithmetic gives.
      mask: a bool, a prefix tree of bools or a callable of params that returns one; False leaves a leaf out. (A Module
        of bools, which may be callable, is a tree.)
      anchor: a pytree like params; the penalty is then of x - anchor. Anchor, mask and strengths pair with params by
        structure, or by name where the containers differ only in type, as a dict and a FrozenDict do.
      backend: "cpu", "reference" or None for the best one that the compiled platform has.

    Returns:
      A scalar: float32, or float64 if any selected leaf is float64. 0.0 for an empty selection.

    Raises:
      TypeError: a selected leaf that is no float array; a strength or mask entry of a wrong type.
      ValueError: a negative or non-finite static strength; trees that do not match; an unknown backend; leaves on
        different meshes or devices; all variables of a linen Module without a mask.

    Source: Zou & Hastie, "Regularization and variable selection via the elastic net", 2005 (without the ½).

    >>> import jax.numpy as jnp
    >>> from fused_penalty.jax import penalty
    >>> params = {"w": jnp.array([0.5, -1.2, 0.8]), "b": jnp.array([0.2, -0.1])}
    >>> round(float(penalty(params, l1={"w": 0.01, "b": 0.005}, l2={"w": 0.001, "b": 0.0005})), 6)
    0.028855
    """
    s = select(params, l1, l2, mask, anchor)
    backend = backends.requested("jax", backend)
    if not s.leaves:
        return scalar(0.0, np.float32)
    spec, strengths = _spec(s, backend)
    with explained(s):
        return core.penalty(spec, *strengths, s.leaves, s.anchors)


def penalty_and_grad(
    params: PyTree,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    mask: Any = None,
    anchor: PyTree | None = None,
    backend: str | None = None,
) -> tuple[jax.Array, PyTree]:
    """The penalty and its gradient l1_i·sign(x_i) + 2·l2_i·x_i in one launch: one read, one write.

    Arguments and errors are those of `penalty`.

    Returns:
      (P, gradients): gradients have the structure, shapes and dtypes of params; each element is computed in
      float32 or wider and rounded once. Leaves that do not count get zeros (float0 zeros if they are not floating, as
      `jax.grad(allow_int=True)` gives; None if they are no arrays, as `equinox.filter_grad` gives).

    >>> import jax.numpy as jnp
    >>> from fused_penalty.jax import penalty_and_grad
    >>> value, grads = penalty_and_grad([jnp.array([0.0, -2.0])], l1=1.0, l2=0.5)
    >>> float(value), grads[0].tolist()
    (4.0, [0.0, -3.0])
    """
    s = select(params, l1, l2, mask, anchor)
    backend = backends.requested("jax", backend)
    found: list[Any] = []
    value = scalar(0.0, np.float32)
    if s.leaves:
        spec, strengths = _spec(s, backend)
        with explained(s):
            value, *found = core.penalty_and_grad(spec, *strengths, s.leaves, s.anchors)
    chosen = set(s.index)
    return value, s.tree(found, [None if i in chosen else _zero_gradient(x) for i, x in enumerate(s.flat.leaves)])


def sums(params: PyTree, *, mask: Any = None, anchor: PyTree | None = None, backend: str | None = None) -> Sums:
    """Σ|x_i| and Σx_i² of each selected leaf, in one launch. Differentiable.

    Arguments and errors are those of `penalty`.

    >>> import jax.numpy as jnp
    >>> from fused_penalty.jax import sums
    >>> s = sums({"a": jnp.array([3.0, -4.0]), "b": jnp.array(2.0)})
    >>> s.abs.tolist(), s.square.tolist(), s.paths
    ([7.0, 2.0], [25.0, 4.0], ('a', 'b'))
    """
    s = select(params, 0.0, 0.0, mask, anchor)
    backend = backends.requested("jax", backend)
    if not s.leaves:
        none = jax.device_put(np.zeros(0, np.float32))
        return Sums(none, none, ())
    n = len(s.leaves)
    with explained(s):
        total = core.sums(core.Spec(backend, tuple(range(n)), (BOTH,) * n), s.leaves, s.anchors)
    absolute, square = jnp.unstack(total, axis=1)
    return Sums(absolute, square, s.paths)


def stats(params: PyTree, *, mask: Any = None, anchor: PyTree | None = None, backend: str | None = None) -> Stats:
    """Σ|x|, Σx², max|x|, zeros and non-finite numbers of each selected leaf, in one launch.

    Arguments and errors are those of `penalty`. Derivatives are zero. An empty leaf has max 0; a leaf with a NaN has
    max NaN. XLA's threads on CPU flush subnormal numbers to zero, so with backend="cpu" those of bfloat16, float32 and
    float64 count as zeros; with `fused_penalty.torch.stats` they do not.

    >>> import jax.numpy as jnp
    >>> from fused_penalty.jax import stats
    >>> s = stats({"a": jnp.array([3.0, -4.0, 0.0]), "b": jnp.array(jnp.inf)})
    >>> s.max.tolist(), s.zeros.tolist(), s.nonfinite.tolist(), s.size
    ([4.0, inf], [1, 0], [0, 1], (3, 1))
    """
    s = select(params, 0.0, 0.0, mask, anchor)
    backend = backends.requested("jax", backend)
    if not s.leaves:
        none, no_count = jax.device_put((np.zeros(0, np.float32), np.zeros(0, np.int32)))
        return Stats(none, none, none, no_count, no_count, (), ())
    with explained(s):
        reals, counts = core.stats(backend, *jax.lax.stop_gradient((s.leaves, s.anchors)))
    sizes = tuple(x.size for x in s.leaves)
    (absolute, square, largest), (zeros, bad) = jnp.unstack(reals, axis=1), jnp.unstack(counts, axis=1)
    return Stats(absolute, square, largest, zeros, bad, sizes, s.paths)


def prox(
    params: PyTree,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    step: Any = 1.0,
    mask: Any = None,
    anchor: PyTree | None = None,
    backend: str | None = None,
) -> PyTree:
    """The proximal step of the penalty, in one launch: S(x, step·l1) / (1 + 2·step·l2) for each leaf.

    That is argmin_y l1‖y‖₁ + l2‖y‖₂² + ‖y - x‖²/(2·step), with S(x, t) = x - clip(x, -t, t): soft-thresholding, which
    gives exact zeros. With an anchor a: a + S(x - a, step·l1) / (1 + 2·step·l2). Under jit each leaf is written where
    it lies if nothing else needs it (donated params: no copy). Differentiable; works under vmap. On CPU XLA flushes
    subnormal numbers of bfloat16, float32 and float64 to zero.

    Args:
      params, l1, l2, mask, anchor, backend: as in `penalty`.
      step: the step's length >= 0: a float or a 0-d array, possibly traced. An array is not read on the host: where it,
        or an l1 that is an array, is negative or NaN, the result is NaN.

    Returns:
      A pytree like params; each element is computed in float32 or wider and rounded once. Masked leaves are returned
      as they are.

    Raises:
      As `penalty`; ValueError or TypeError for a step that is no finite number >= 0.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, section 6.5.

    >>> import jax.numpy as jnp
    >>> from fused_penalty.jax import prox
    >>> prox([jnp.array([0.5, -2.0])], l1=1.0, l2=0.5)[0].tolist()
    [0.0, -0.5]
    """
    s = select(params, l1, l2, mask, anchor)
    step = check_strength("step", step, is_array)
    backend = backends.requested("jax", backend)
    found: Sequence[jax.Array] = ()
    if s.leaves:
        spec, strengths = _spec(s, backend)
        length = scalar(step, core.launch.result_dtype(s.leaves))
        in_place = any(isinstance(x, jax.core.Tracer) for x in s.leaves)
        with explained(s):
            found = core.proximal(spec, in_place, length, *strengths, s.leaves, s.anchors)
    return s.tree(found, s.flat.leaves)


def _spec(s: Selection, backend: str | None) -> tuple[core.Spec, tuple[tuple[jax.Array, ...], ...]]:
    dtype = core.launch.result_dtype(s.leaves)
    strengths = tuple(tuple(scalar(v, dtype) for v in values) for values in (s.groups.l1, s.groups.l2))
    return core.Spec(backend, s.groups.of_leaf, s.groups.terms), strengths


def _zero_gradient(leaf: Any) -> Any:
    """What stands for a gradient where a leaf does not count; None beside what is no array at all, a function say."""
    if not is_numeric(leaf):
        return None
    if isinstance(leaf, float) or jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
        return _zeros(leaf)
    return np.zeros(np.shape(leaf), jax.dtypes.float0)


def _zeros(leaf: Any) -> jax.Array:
    """`jnp.zeros_like`, but without a transfer of its zero, which `jax.transfer_guard("disallow")` would refuse."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return jnp.zeros_like(leaf)
    return _zeros_at(leaf.sharding)(leaf)


@functools.lru_cache(maxsize=64)
def _zeros_at(sharding: jax.sharding.Sharding) -> Any:
    return jax.jit(jnp.zeros_like, out_shardings=sharding)
