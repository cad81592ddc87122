"""The L1/L2 (elastic-net) penalty of a whole model and its gradient, in one launch.

    from fused_penalty.jax import penalty      # or fused_penalty.torch
    loss = data_loss + penalty(params, l1=1e-5, l2=1e-4)

This module imports neither jax nor torch; `fused_penalty.jax` and `fused_penalty.torch` do. Its regularizers, and NumPy
with them, are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._core.module_rules import by_type, no_decay_on_norms_and_biases
from ._core.rules import by_leaf, by_path

if TYPE_CHECKING:
    from ._core.backends import backends
    from ._version import __version__ as __version__
    from .regularizers import L1, L1L2, L2

__all__ = ["L1", "L1L2", "L2", "backends", "by_leaf", "by_path", "by_type", "no_decay_on_norms_and_biases"]

_LATER = {
    "L1": "regularizers",
    "L1L2": "regularizers",
    "L2": "regularizers",
    "__version__": "_version",
    "backends": "_core.backends",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
