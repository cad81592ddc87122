"""`L1L2`, `L1`, `L2`: treex's constructor, Keras' manners, for parameters of JAX or PyTorch."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ._core.errors import describe
from ._core.rules import ByLeaf, ByPath
from ._core.strengths import check_strength

REDUCTIONS = (None, "none", "sum", "sum_over_batch_size")


@dataclass(frozen=True, init=False, repr=False)
class L1L2:
    """weight · Σ_i ( l1·Σ|x_i| + l2·Σx_i² ) over all parameters, from one launch.

    Immutable and hashable, so that it can be a static argument under jit. One object serves a JAX pytree and
    torch parameters (an nn.Module, a mapping, an iterable).

    Args:
      l1, l2: finite floats >= 0 (None counts as 0), or `by_path` / `by_leaf` rules.
      reduction: None, "none", "sum" or "sum_over_batch_size" (or treex's enum). Kept for treex's signature: a
        penalty is a scalar, which every reduction leaves as it is.
      weight: a factor of the whole penalty, default 1.
      on: an index or a sequence of indices into the parameters, applied one after the other: `on="encoder"`,
        `on=("layers", 0)`. Attributes count where an object cannot be indexed. (treex documents `on` and ignores
        it for parameters; here it is honoured.)
      name: default is the snake-cased class name.

    Raises:
      TypeError, ValueError: a bad strength, weight or reduction; KeyError, IndexError or AttributeError when
        called with parameters that `on` does not lead into.

    Source: `treex.regularizers.L1L2`, `keras.regularizers.L1L2`. Unlike treex, sign(0) = 0 in the gradient.

    >>> import jax.numpy as jnp
    >>> import fused_penalty as fp
    >>> reg = fp.L1L2(l1=0.01, l2=0.001)
    >>> round(float(reg({"w": jnp.array([0.5, -1.2, 0.8])})), 5)
    0.02733
    >>> reg
    L1L2(l1=0.01, l2=0.001)
    """

    l1: Any
    l2: Any
    reduction: str | None
    weight: float | None
    on: tuple[Any, ...] | None
    name: str

    def __init__(
        self,
        l1: Any = 0.0,
        l2: Any = 0.0,
        reduction: Any = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        values = {
            "l1": _strength("l1", l1),
            "l2": _strength("l2", l2),
            "reduction": _reduction(reduction),
            "weight": _weight(weight),
            "on": None if on is None else tuple(on) if isinstance(on, (list, tuple)) else (on,),
            "name": self._default_name() if name is None else name,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def _default_name(cls) -> str:
        return {"L1L2": "l1_l2"}.get(cls.__name__, cls.__name__.lower())

    def __call__(self, parameters: Any) -> Any:
        """The penalty of `parameters`: a 0-d array of their framework, or 0.0 if there is no leaf."""
        for key in self.on or ():
            parameters = _step_into(parameters, key)
        if isinstance(parameters, Iterator):
            parameters = list(parameters)
        framework = _framework_of(parameters)
        if framework is None:
            return 0.0
        value: Any
        if framework == "torch":  # import statements, since torch.compile cannot follow importlib
            from . import torch as verbs

            value = verbs.penalty(parameters, self.l1, self.l2)
        else:
            from . import jax

            value = jax.penalty(parameters, self.l1, self.l2)
        return value if self.weight is None else value * self.weight

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for `from_config`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> L1L2:
        """The inverse of `get_config`.

        >>> import fused_penalty as fp
        >>> fp.L1.from_config(fp.L1(0.1).get_config()) == fp.L1(0.1)
        True
        """
        return cls(**config)

    def __repr__(self) -> str:
        # Strengths always; of the rest what differs from the default.
        quiet = {"reduction": None, "weight": None, "on": None, "name": self._default_name()}
        shown = ((k, v) for k, v in self.get_config().items() if k not in quiet or quiet[k] != v)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown)})"


class _OneTerm(L1L2):
    """A regularizer with one strength, called `l` as in treex."""

    _term: str

    def __init__(
        self,
        l: Any = 0.01,  # noqa: E741  treex's name
        reduction: Any = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        strength = {self._term: _strength("l", l, default=0.01)}
        super().__init__(**strength, reduction=reduction, weight=weight, on=on, name=name)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        strength = {"l": config[self._term]}
        return strength | {k: v for k, v in config.items() if k not in ("l1", "l2")}


class L1(_OneTerm):
    """weight · l · Σ|x| over all parameters; arguments as in `L1L2`.

    >>> import fused_penalty as fp
    >>> fp.L1()
    L1(l=0.01)
    """

    _term = "l1"


class L2(_OneTerm):
    """weight · l · Σx² over all parameters (no ½: `weight_decay=wd` is l = wd / 2); arguments as in `L1L2`.

    >>> import fused_penalty as fp
    >>> fp.L2(l=0.1, name="decay")
    L2(l=0.1, name='decay')
    """

    _term = "l2"


def _strength(name: str, value: Any, default: float = 0.0) -> Any:
    if isinstance(value, (ByPath, ByLeaf)):
        return value
    try:
        return check_strength(name, default if value is None else value, lambda _: False)
    except (TypeError, ValueError) as e:
        raise type(e)(
            f"Invalid value for argument {name}: expected a non-negative float. Received: {name}={describe(value)}. "
            "A traced or learned strength goes to fused_penalty.jax.penalty or fused_penalty.torch.penalty"
        ) from None


def _reduction(value: Any) -> str | None:
    text = getattr(value, "value", value)
    if text not in REDUCTIONS:
        raise ValueError(
            f"Invalid value for argument reduction: expected one of {REDUCTIONS}. Received: reduction={value!r}"
        )
    return text


def _weight(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"Invalid value for argument weight: expected a finite float. Received: weight={value!r}")
    return float(value)


def _step_into(parameters: Any, key: Any) -> Any:
    if hasattr(parameters, "__getitem__") and not (isinstance(key, str) and isinstance(parameters, (list, tuple))):
        return parameters[key]
    if not isinstance(key, str):
        raise TypeError(f"on: {describe(key)} cannot index {describe(parameters)}. Use the name of an attribute")
    return getattr(parameters, key)


def _framework_of(parameters: Any) -> str | None:
    """ "torch" or "jax"; None where there is no leaf. Imports neither for the sake of asking."""
    torch = sys.modules.get("torch")
    if torch is not None and _holds(parameters, (torch.Tensor, torch.nn.Module)):
        return "torch"
    if not _holds(parameters, object):
        return None
    import jax

    return "jax" if jax.tree.leaves(parameters) else None


def _holds(value: Any, kind: Any) -> bool:
    """Whether a leaf of the builtin containers is of the kind."""
    if isinstance(value, Mapping):
        return any(_holds(v, kind) for v in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds(v, kind) for v in value)
    return value is not None and isinstance(value, kind)
