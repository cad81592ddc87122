"""The L1/L2 (elastic-net) penalty of a whole model and its gradient, in one launch.

    from fused_penalty.jax import penalty      # or fused_penalty.torch
    loss = data_loss + penalty(params, l1=1e-5, l2=1e-4)

This module imports neither jax nor torch; `fused_penalty.jax` and `fused_penalty.torch` do.
"""

from ._core.backends import backends
from ._core.rules import by_leaf, by_path
from .regularizers import L1, L1L2, L2

__all__ = ["L1", "L1L2", "L2", "backends", "by_leaf", "by_path"]
