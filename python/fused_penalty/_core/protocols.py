"""What a backend has to be: in each framework one function that launches, and one more for an optimizer's step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from .operations import Op
from .plan import Plan
from .steps import Arrays, Step


class Launched(NamedTuple):
    """What a launch in JAX gives: the totals of each slot (reals and counts apart, where there are counts), the echo if
    the operation writes nothing, and what it has written, an array for each leaf."""

    totals: tuple[Any, ...]
    one: Any | None
    arrays: tuple[Any, ...]


class JaxBackend(Protocol):
    """A backend of JAX: one function. Coefficients are (slots, 2), None where the operation has none; `arrays` are the
    leaves, then their anchors, if any; the totals have the dtype `dtype`.

    A row with `steps` has a second one, for an optimizer's step: coefficients are (slots, len(steps.COEFFICIENTS));
    `arrays` are the leaves, then their anchors, if any, then those of each role of the step. It gives the reals and the
    counts of the totals, and the new leaves and their new state in the same order.
    """

    def launch(
        self, op: Op, plan: Plan, coefficients: Any | None, arrays: Sequence[Any], dtype: Any, *, in_place: bool
    ) -> Launched: ...

    def step(self, step: Step, plan: Plan, coefficients: Any, arrays: Sequence[Any], dtype: Any) -> Launched: ...


class TorchBackend(Protocol):
    """A backend of PyTorch: one function, for leaves of one device. `anchors` is empty where there are none; `outs` are
    the arrays that the operation writes, None for a leaf that is only read, or the very list `xs` for an operation that
    is to be written over its leaves; coefficients are (n, 2) float64, and `terms` tell which of them are not statically
    absent. An operation that writes nothing is given no outs, coefficients (None) and terms.

    Returns the totals (n, len(op.columns)) float64 of what was read.

    A row with `steps` has a second one, for an optimizer's step: coefficients are (n, len(steps.COEFFICIENTS)) float64.
    Returns (n, len(steps.COLUMNS)) float64.
    """

    def launch(
        self, op: Op, xs: list[Any], anchors: list[Any], outs: list[Any], coefficients: Any | None, terms: Sequence[int]
    ) -> Any: ...

    def step(self, step: Step, xs: list[Any], anchors: list[Any], arrays: Arrays, coefficients: Any) -> Any: ...
