"""`L1L2`, `L1`, `L2`: treex's constructor, Keras' manners, for parameters of JAX or PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from ._core import rule_configs
from ._core.errors import describe
from ._core.rules import Rule
from ._core.strengths import as_float, check_strength
from .parameters import Pairs, framework_of, listed, meet_keras, step_into

Strength: TypeAlias = float | np.number | np.ndarray | Rule
"""l1 or l2: a number >= 0, or a rule. Not an array of a framework, so that a regularizer can be hashed."""

Params: TypeAlias = Any
"""A JAX pytree, or what `fused_penalty.torch` takes: a Module, a mapping or an iterable of tensors."""

Value: TypeAlias = Any
"""A 0-d jax.Array or torch.Tensor, or 0.0."""

REDUCTIONS = (None, "none", "sum", "sum_over_batch_size")


class Regularizer:
    """To which `fused_penalty.keras` adds Keras' class of this name as a base of `L1L2`."""


@dataclass(frozen=True, init=False, repr=False)
class L1L2(Regularizer):
    """weight · Σ_i ( l1·Σ|x_i| + l2·Σx_i² ) over all parameters, from one launch.

    Called with a JAX pytree or torch parameters (a Module, a mapping, an iterable) of the dtypes that `penalty` takes,
    it returns a 0-d array of their framework, float32 or float64. Immutable and hashable, so that it can be a static
    argument under jit.

    Args:
      l1, l2: Finite floats >= 0 (None counts as 0), or rules: `by_path`, `by_leaf`, `by_type`,
        `no_decay_on_norms_and_biases`.
      reduction: None, "none", "sum" or "sum_over_batch_size" (or treex's enum). Kept for treex's signature: a
        penalty is a scalar, which every reduction leaves as it is.
      weight: A factor of the whole penalty; None counts as 1.
      on: A key or a sequence of keys into the parameters, applied one after the other: `on="encoder"`,
        `on=("layers", 0)`. They are attribute names where an object cannot be indexed. (treex documents `on` and
        ignores it for parameters; here it is honoured.)
      name: Default is the snake-cased class name.

    Raises:
      TypeError, ValueError: A strength, weight or reduction is not valid; when called, as in `penalty`.
      KeyError, IndexError, AttributeError: When called with parameters that have no `on`.

    In Keras 3, on JAX or PyTorch, it is a `kernel_regularizer=` like Keras' own, takes Variables, and for a Model its
    trainable variables; `fused_penalty.keras` makes one launch of a whole model's.

    Source: `treex.regularizers.L1L2`, `keras.regularizers.L1L2`. Unlike treex, and Keras on JAX, sign(0) = 0 in the
      gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> import fused_penalty as fp
      >>> reg = fp.L1L2(l1=0.01, l2=0.001)
      >>> round(float(reg({"w": jnp.array([0.5, -1.2, 0.8])})), 5)
      0.02733
      >>> reg
      L1L2(l1=0.01, l2=0.001)
    """

    l1: Strength
    l2: Strength
    reduction: str | None
    weight: float | None
    on: tuple[Any, ...] | None
    name: str

    def __init__(
        self,
        l1: Strength | None = 0.0,
        l2: Strength | None = 0.0,
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
        meet_keras()

    @classmethod
    def _default_name(cls) -> str:
        return {"L1L2": "l1_l2"}.get(cls.__name__, cls.__name__.lower())

    def __call__(self, parameters: Params) -> Value:
        """Compute the penalty of `parameters`: a 0-d array of their framework, or 0.0 if there is no leaf."""
        parameters = listed(parameters)
        for key in self.on or ():
            parameters = listed(step_into(parameters, key))
        framework = framework_of(parameters)
        if framework == "keras":
            from . import keras

            parameters = keras.params(parameters)
            framework = framework_of(parameters)
        if framework is None:
            return 0.0
        value: Any
        if framework == "torch":  # import statements, since torch.compile cannot follow importlib
            from . import torch as verbs

            value = verbs.penalty(parameters, self.l1, self.l2)
        else:
            from . import jax

            if isinstance(parameters, Pairs):  # to JAX a name is one more leaf
                parameters = dict(parameters)
            value = jax.penalty(parameters, self.l1, self.l2)
        return value if self.weight is None else value * self.weight

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for `from_config`: plain data, unless a rule holds functions or types."""
        meet_keras()
        return {name: rule_configs.to_config(value) for name, value in self._arguments().items()}

    def _arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> L1L2:
        """Build a regularizer from what `get_config` returned.

        Example:
          >>> import fused_penalty as fp
          >>> fp.L1.from_config(fp.L1(0.1).get_config()) == fp.L1(0.1)
          True
        """
        return cls(**{name: rule_configs.from_config(value) for name, value in config.items()})

    def __repr__(self) -> str:
        # Strengths always; of the rest what differs from the default.
        quiet = {"reduction": None, "weight": None, "on": None, "name": self._default_name()}
        shown = ((k, v) for k, v in self._arguments().items() if k not in quiet or quiet[k] != v)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown)})"


class _OneTerm(L1L2):
    """A regularizer with one strength, called `l` as in treex, or as the term as in Keras."""

    _term: str

    def _fill(self, l: Strength | None, spelled: Strength | None, **rest: Any) -> None:  # noqa: E741  treex's name
        if l is not None and spelled is not None:
            raise TypeError(f"l and {self._term}: two names of one strength. Give one of them")
        name, value = ("l", l) if spelled is None else (self._term, spelled)
        rest[self._term] = _strength(name, value, default=0.01)
        L1L2.__init__(self, **rest)

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments()
        strength = {"l": arguments[self._term]}
        return strength | {k: v for k, v in arguments.items() if k not in ("l1", "l2")}


class L1(_OneTerm):
    """weight · l · Σ|x| over all parameters, from one launch.

    Args:
      l, l1: The strength, under treex's name or Keras's: as in `L1L2`, but 0.01 by default. Give one.
      reduction, weight, on, name: As in `L1L2`.

    Raises:
      TypeError: Both l and l1 are given, or as in `L1L2`.
      ValueError: As in `L1L2`.

    Example:
      >>> import fused_penalty as fp
      >>> fp.L1(), fp.L1(l1=0.1)
      (L1(l=0.01), L1(l=0.1))
    """

    _term = "l1"

    def __init__(
        self,
        l: Strength | None = None,  # noqa: E741  treex's name
        reduction: Any = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
        *,
        l1: Strength | None = None,
    ) -> None:
        self._fill(l, l1, reduction=reduction, weight=weight, on=on, name=name)


class L2(_OneTerm):
    """weight · l · Σx² over all parameters, from one launch (no ½: `weight_decay=wd` is l = wd / 2).

    Args:
      l, l2: The strength, under treex's name or Keras's: as in `L1L2`, but 0.01 by default. Give one.
      reduction, weight, on, name: As in `L1L2`.

    Raises:
      TypeError: Both l and l2 are given, or as in `L1L2`.
      ValueError: As in `L1L2`.

    Example:
      >>> import fused_penalty as fp
      >>> fp.L2(l=0.1, name="decay")
      L2(l=0.1, name='decay')
    """

    _term = "l2"

    def __init__(
        self,
        l: Strength | None = None,  # noqa: E741  treex's name
        reduction: Any = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
        *,
        l2: Strength | None = None,
    ) -> None:
        self._fill(l, l2, reduction=reduction, weight=weight, on=on, name=name)


def _strength(name: str, value: Strength | None, default: float = 0.0) -> Strength:
    if isinstance(value, Rule):
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
    number = as_float(value)
    if number is None or not math.isfinite(number):
        raise ValueError(
            f"Invalid value for argument weight: expected a finite float. Received: weight={describe(value)}"
        )
    return number
