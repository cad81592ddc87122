"""The end of a step: params + updates, the proximal step, and back to updates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._core.operations import Op
from ..jax.elastic_net import wide
from ..jax.strengths import scalar
from ..jax.types import PyTree, Scalar
from .leaves import LeafPenalty
from .trees import joined, map_updates


def prox_updates(
    updates: PyTree, penalties: PyTree, params: PyTree, step: Scalar, scales: PyTree | None = None
) -> PyTree:
    """New params - params, where new params is the proximal step, of length step·scale, of params + updates.

    The difference, since `apply_updates` then gives exact zeros. `scales` has a factor for each element, 1 without it;
    an element whose factor is 0 is left alone. All is computed in float32 or wider and rounded once; updates of leaves
    without a penalty pass unchanged.
    """

    def each(update: jax.Array, penalty: LeafPenalty | None, param: Any, scale: jax.Array | None = None) -> jax.Array:
        if penalty is None or not penalty.terms:
            return update
        x = wide(jnp.asarray(param))
        y = x + update.astype(x.dtype)
        if scale is None:
            new = penalty.written(Op.PROX, y, step)
        else:
            s = scale.astype(x.dtype)
            # with an anchor a proximal step of length 0 would round: anchor + (y - anchor)
            new = jnp.where(s == 0, y, penalty.written(Op.PROX, y, scalar(step, x.dtype) * s))
        return (new - x).astype(joined(update, param))

    return map_updates(each, updates, penalties, params, *([] if scales is None else [scales]))
