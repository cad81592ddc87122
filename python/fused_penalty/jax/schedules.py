"""Schedules: strengths and learning rates that are called with the number of steps taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from .._core.rules import Rule
from .._core.strengths import check_strength
from .params import is_array
from .types import Scalar

Schedule: TypeAlias = Callable[[jax.Array], Scalar]
"""From the number of steps taken (int32, from 0) to a strength or a learning rate."""


def rate_at(learning_rate: Scalar | Schedule, count: jax.Array) -> Scalar:
    """The learning rate at this step, checked; an array is not read on the host."""
    return check_strength("learning_rate", at(learning_rate, count), is_array)


def at(value: Any, count: jax.Array) -> Any:
    """The value at this step: schedules are called, also in trees and in rules."""
    if isinstance(value, Rule):
        return value.mapped(lambda v: at(v, count))
    return jax.tree.map(lambda v: v(count) if callable(v) else v, value)
