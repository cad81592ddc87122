"""The L1/L2 (elastic-net) penalty of a whole model and its gradient, in one launch.

This module imports neither jax nor torch; `fused_penalty.jax` and `fused_penalty.torch` do.
"""

from ._backends import backends
from ._rules import by_leaf, by_path

__all__ = ["backends", "by_leaf", "by_path"]
