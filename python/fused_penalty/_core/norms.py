"""The arguments of `global_norm` and of clipping, the same in every framework."""

from __future__ import annotations

import math
from typing import Any

from .errors import bad, describe
from .strengths import Admit, IsScalar, as_float, check_strength


def order_of(number: float) -> float | None:
    """The order that a number is, None if there is no kernel for it. A constant, also where torch.compile has made a
    symbol of the number."""
    if number == 1:
        return 1.0
    if number == 2:
        return 2.0
    return math.inf if number == math.inf else None


def strengths_of(order: float) -> tuple[float, float]:
    """(l1, l2) with which a penalty is what the norm of this order needs."""
    return (1.0, 0.0) if order == 1 else (0.0, 1.0)


def check_order(argument: str, value: Any) -> float:
    """The order of a norm: 1, 2 or inf."""
    number = as_float(value)
    order = None if number is None else order_of(number)
    if order is None:
        kind = TypeError if number is None else ValueError
        raise bad(kind, argument, f"{describe(value)} is not an order that has a kernel", "Use 1, 2 or float('inf')")
    return order


def check_max_norm(value: Any, is_device: IsScalar, argument: str = "max_norm", *, admit: Admit | None = None) -> Any:
    """The largest norm that is left as it is: a float >= 0, which may be inf, or a 0-d array of the framework."""
    if is_device(value):
        return check_strength(argument, value, is_device, admit=admit)
    limit = as_float(value)
    if limit is None or not limit >= 0:  # a NaN, too
        kind = TypeError if limit is None else ValueError
        raise bad(
            kind, argument, f"{describe(value)} is not a norm",
            "Use a float >= 0 (inf never clips) or a 0-d array of the same framework",
        )  # fmt: skip
    return limit
