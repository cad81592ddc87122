"""The table of operations: what a launch reads, writes and finds, and its coefficients from the strengths.

Every operation is the same walk over the chunks of a plan: it sums |d| and d² of the displacement d = x - anchor (d = x
without an anchor) and, beside that, writes what its row says. A new operation is a row here, its twin in
`kernels/operations.h`, and its formula in the `elastic_net` of each language.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any


class Role(enum.Enum):
    """The arrays of a leaf, by their role in an operation. Any operation that is given an anchor reads it."""

    X = "x"
    GRAD = "grad"  # a gradient that exists already
    OUT = "out"  # a fresh array like the leaf


SUMS_COLUMNS = ("abs", "square")
STATS_COLUMNS = (*SUMS_COLUMNS, "max", "zeros", "nonfinite")
Coefficients = Callable[[Any, Any, Any], tuple[Any, Any]]


class Op(enum.IntEnum):
    """A row: code, what is read, what is written, the columns that are found for each slot, the formula, and its
    coefficients (a, b) as a function of (l1, l2, step), which uses operators only: floats, arrays or tensors.

    >>> Op.PROX.coefficients(1.0, 0.5, 0.5)
    (0.5, 0.6666666666666666)
    """

    reads: tuple[Role, ...]
    writes: Role | None
    columns: tuple[str, ...]
    formula: str
    coefficients: Coefficients

    def __new__(
        cls, code: int, reads: tuple[Role, ...], writes: Role | None, columns: tuple[str, ...], formula: str,
        coefficients: Coefficients,
    ) -> Op:  # fmt: skip
        row = int.__new__(cls, code)
        row._value_ = code
        row.reads, row.writes, row.columns, row.formula = reads, writes, columns, formula
        row.coefficients = coefficients
        return row

    @property
    def reads_old(self) -> bool:
        """Whether the old contents of the array that is written matter, other than as x."""
        return self.writes is not Role.X and self.writes in self.reads

    @property
    def counts(self) -> bool:
        """Whether some of its columns are counts, which float32 could not hold."""
        return self.columns is STATS_COLUMNS

    SUMS = 0, (Role.X,), None, SUMS_COLUMNS, "", lambda l1, l2, step: (0.0, 0.0)
    GRADIENT = 1, (Role.X,), Role.OUT, SUMS_COLUMNS, "out = a·sign(d) + b·d", lambda l1, l2, step: (l1, 2 * l2)
    ADD_GRADIENT = (
        2, (Role.X, Role.GRAD), Role.GRAD, SUMS_COLUMNS, "grad += a·sign(d) + b·d",
        lambda l1, l2, step: (l1, 2 * l2),
    )  # fmt: skip
    PROX = (
        3, (Role.X,), Role.X, SUMS_COLUMNS, "x = anchor + b·(d - clip(d, a))",
        lambda l1, l2, step: (step * l1, 1 / (1 + 2 * step * l2)),
    )  # fmt: skip
    REGULARIZE = 4, (Role.X,), Role.X, SUMS_COLUMNS, "x = x - clip(d, a) - b·d", lambda l1, l2, step: (l1, l2)
    STATS = 5, (Role.X,), None, STATS_COLUMNS, "", lambda l1, l2, step: (0.0, 0.0)


_BY_CODE = {int(op): op for op in Op}


def op_of(code: int) -> Op:
    """The operation with this code; ValueError for a code that no row has."""
    if code not in _BY_CODE:
        raise ValueError(
            f"op: there is no operation {code}. Use one of {', '.join(f'{c} ({o.name})' for c, o in _BY_CODE.items())}"
        )
    return _BY_CODE[code]
