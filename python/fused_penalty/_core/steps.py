"""The table of steps: what an optimizer's step with the penalty in it reads, writes and finds, in one pass.

The twin of `kernels/steps.h`, and a test compares the two. `kernels/step_formula.h` has the formulas, with the meaning
of each coefficient; `torch/step_formula.py` is their twin in torch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

from .errors import bad

COLUMNS = ("abs", "square", "grad_square", "step_square", "zeros", "nonfinite")
COEFFICIENTS = (
    "scale", "l1", "l2", "decay", "shrink", "keep", "rest", "take", "look", "rate", "root", "epsilon", "threshold",
    "pull", "metric", "skip",
)  # fmt: skip


Penalty: TypeAlias = Literal["prox", "grad", "decoupled"]
"""How the penalty enters a step: as the proximal step in the optimizer's metric, as a part of the gradient, or as the
euclidean proximal step."""


def check_penalty(value: Any) -> Penalty:
    known: tuple[Penalty, ...] = get_args(Penalty)
    if value not in known:
        raise bad(ValueError, "penalty", f"{value!r} is unknown", f"Use one of {', '.join(map(repr, known))}")
    return cast(Penalty, value)


class StepRole(enum.Enum):
    """The arrays of a leaf beside x and its anchor."""

    GRADIENT = "gradient"
    FIRST = "first"  # SGD's momentum, Adam's first moment
    SECOND = "second"  # Adam's second moment
    MAXIMUM = "maximum"  # amsgrad's maximum of the second


Arrays: TypeAlias = Mapping[StepRole, Sequence[Any | None]]
"""For each role a list like the leaves, with None for a leaf that has none or is only read."""


class Step(enum.IntEnum):
    """A row: the code and the arrays. Every step writes x; one that reads a gradient also writes its state.

    >>> [role.value for role in Step.ADAM.arrays]
    ['gradient', 'first', 'second']
    """

    arrays: tuple[StepRole, ...]

    def __new__(cls, code: int, *arrays: StepRole) -> Step:
        row = int.__new__(cls, code)
        row._value_ = code
        row.arrays = arrays
        return row

    @property
    def state(self) -> tuple[StepRole, ...]:
        """The arrays other than the gradient."""
        return tuple(role for role in self.arrays if role is not StepRole.GRADIENT)

    @property
    def written(self) -> tuple[StepRole, ...]:
        """The arrays that it writes beside x: the state, which without a gradient stays as it is."""
        return self.state if StepRole.GRADIENT in self.arrays else ()

    @property
    def decides(self) -> StepRole:
        """The array whose absence says that a leaf is only read."""
        return self.arrays[0]

    PROX_METRIC = 0, StepRole.SECOND
    SGD = 1, StepRole.GRADIENT
    MOMENTUM = 2, StepRole.GRADIENT, StepRole.FIRST
    ADAM = 3, StepRole.GRADIENT, StepRole.FIRST, StepRole.SECOND
    AMSGRAD = 4, StepRole.GRADIENT, StepRole.FIRST, StepRole.SECOND, StepRole.MAXIMUM
