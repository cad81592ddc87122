"""What a regularizer is called with: where `on` leads in it, and whose arrays it holds."""

from __future__ import annotations

import importlib.util
import sys
from collections import deque
from collections.abc import ItemsView, Iterator, MappingView
from typing import Any

from ._core.containers import walk
from ._core.errors import bad, describe


class Pairs(list):
    """What the `items()` of a mapping held."""


def listed(parameters: Any) -> Any:
    """Parameters that can be read only once or not by index (iterators, views of mappings, deques) as a list."""
    if isinstance(parameters, ItemsView):
        return Pairs(parameters)
    read_once: Any = (Iterator, MappingView, deque)
    return list(parameters) if isinstance(parameters, read_once) else parameters


def step_into(parameters: Any, key: Any) -> Any:
    if hasattr(parameters, "__getitem__") and not (isinstance(key, str) and isinstance(parameters, (list, tuple))):
        return parameters[key]
    if not isinstance(key, str):
        raise TypeError(f"on: {describe(key)} cannot index {describe(parameters)}. Use the name of an attribute")
    return getattr(parameters, key)


def keras_3() -> Any:
    """Keras, if it is imported and not older than its version 3."""
    keras = sys.modules.get("keras")
    return keras if hasattr(keras, "Variable") else None


def meet_keras() -> None:
    """Tell Keras of our regularizers, if it is imported, so that it accepts and can save them."""
    if keras_3() is not None:
        from . import keras  # noqa: F401


def framework_of(parameters: Any) -> str | None:
    """ "keras", "torch" or "jax"; None if there are no leaves. Does not import a framework just to check."""
    torch, keras = sys.modules.get("torch"), keras_3()
    of_keras = () if keras is None else (keras.Variable, keras.Layer)
    empty = True
    for _, leaf in walk("parameters", parameters):
        empty = False
        if of_keras and isinstance(leaf, of_keras):  # first, since with PyTorch a Layer of Keras is a Module, too
            return "keras"
        if torch is not None and isinstance(leaf, (torch.Tensor, torch.nn.Module)):
            return "torch"
    if empty:
        return None
    if importlib.util.find_spec("jax") is None:
        raise bad(
            TypeError, "parameters", f"{describe(parameters)} holds no torch tensor, and JAX is not installed",
            "Give an nn.Module, a mapping or an iterable of tensors",
        )  # fmt: skip
    import jax

    return "jax" if jax.tree.leaves(parameters) else None
