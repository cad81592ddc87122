"""`clip_by_global_norm`: optax's, with the norm from one launch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._core.norms import check_max_norm
from ..jax.elastic_net import wide
from ..jax.norms import global_norm
from ..jax.params import is_array
from ..jax.strengths import scalar
from ..jax.types import PyTree, Scalar


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
