"""The norm of a whole tree: `global_norm`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .._core.norms import check_order, strengths_of
from .summaries import stats
from .types import Params
from .verbs import penalty

__all__ = ["global_norm"]


def global_norm(params: Params, ord: float = 2, *, backend: str | None = None) -> jax.Array:
    """Compute the norm of all leaves as if they were one vector: Σ|x|, √Σx² or max|x|, in one launch.

    Order 2 is `optax.tree.norm` (once `optax.global_norm`), but for its derivative where all is zero: 0, as a
    subgradient and `optax.safe_norm` have it, where optax's is NaN. Orders 1 and 2 are differentiable, as `penalty` is;
    the derivative of order inf is zero, as that of `stats`. Works under jit, grad, vmap, and on meshes, where one
    all-reduce adds up the sums (order inf: `stats`' all-reduce of the maximum).

    The sums of all leaves are added up in float64, but leave the launch in the result's dtype: in float32 a Σx² beyond
    3.4e38, that of a norm above 1.8e19, is inf.

    Args:
      params: Leaves as in `penalty`, or gradients, of any of the dtypes, also mixed. None is not a leaf.
      ord: 1, 2 or inf.
      backend: As in `penalty`.

    Returns:
      A scalar: float32, or float64 if any leaf is float64. 0.0 if there are no leaves.

    Raises:
      TypeError: As in `penalty`, or ord is not a number.
      ValueError: ord is another number, or as in `penalty`.
      RuntimeError: As in `penalty`.

    Example:
      >>> import jax.numpy as jnp
      >>> from fused_penalty.jax import global_norm
      >>> grads = {"w": jnp.array([3.0, 0.0]), "b": jnp.array(-4.0)}
      >>> [float(global_norm(grads, order)) for order in (1, 2, jnp.inf)]
      [7.0, 5.0, 4.0]
    """
    order = check_order("ord", ord)
    if order == math.inf:
        return _largest(stats(params, backend=backend).max)
    total = penalty(params, *strengths_of(order), backend=backend)
    return total if order == 1 else _root(total)


# Jitted, so that their constants are no transfers, which `jax.transfer_guard("disallow")` would refuse.


@jax.jit
def _root(square: jax.Array) -> jax.Array:
    """√square, with derivative 0 at 0, where that of the root is infinite and its product with x = 0 would be NaN."""
    none = square == 0
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, square)))


@jax.jit
def _largest(found: jax.Array) -> jax.Array:
    return jnp.max(found, initial=0)
