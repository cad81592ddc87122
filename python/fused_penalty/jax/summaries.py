"""What the leaves hold: `sums` and `stats`, a number per leaf."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import backends
from .._core.plan import BOTH
from . import calculus as core
from .params import select
from .placement import explained
from .types import Anchor, Mask, Params

__all__ = ["Stats", "Sums", "stats", "sums"]


class Sums(NamedTuple):
    """What `sums` returns, a value for each selected leaf.

    Attributes:
      abs: Σ|x|, shape (n,), float32, or float64 if any selected leaf is float64.
      square: Σx², as abs.
      paths: The dotted paths of the leaves.
    """

    abs: jax.Array
    square: jax.Array
    paths: tuple[str, ...]


class Stats(NamedTuple):
    """What `stats` returns, a value for each selected leaf.

    Attributes:
      abs: Σ|x|, shape (n,), float32, or float64 if any selected leaf is float64.
      square: Σx², as abs.
      max: max|x|, as abs.
      zeros: How many elements are zero, shape (n,), int32 (at most 2³¹ - 1), or int64 if any selected leaf is float64.
      nonfinite: How many are infinite or NaN, as zeros.
      size: How many elements there are.
      paths: The dotted paths of the leaves.
    """

    abs: jax.Array
    square: jax.Array
    max: jax.Array
    zeros: jax.Array
    nonfinite: jax.Array
    size: tuple[int, ...]
    paths: tuple[str, ...]


def sums(params: Params, *, mask: Mask | None = None, anchor: Anchor | None = None, backend: str | None = None) -> Sums:
    """Compute Σ|x_i| and Σx_i² of each selected leaf, in one launch. Differentiable, as `penalty` is.

    Args:
      params, mask, backend: As in `penalty`.
      anchor: A pytree like params; the sums are then those of x - anchor.

    Returns:
      A `Sums` with arrays of shape (n,), n being the number of selected leaves.

    Raises:
      TypeError, ValueError, RuntimeError: As in `penalty`.

    Example:
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


def stats(
    params: Params, *, mask: Mask | None = None, anchor: Anchor | None = None, backend: str | None = None
) -> Stats:
    """Compute Σ|x|, Σx², max|x|, zeros and non-finite numbers of each selected leaf, in one launch.

    Derivatives are zero. An empty leaf has max 0; a leaf with a NaN has max NaN. XLA's threads on CPU flush subnormal
    numbers to zero, so with backend="cpu" those of bfloat16, float32 and float64 count as zeros; with
    `fused_penalty.torch.stats` they do not.

    Args:
      params, mask, backend: As in `penalty`.
      anchor: A pytree like params; the numbers are then those of x - anchor.

    Returns:
      A `Stats` with arrays of shape (n,), n being the number of selected leaves.

    Raises:
      TypeError, ValueError, RuntimeError: As in `penalty`.

    Example:
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
