"""An optimizer's step on the parts that one device holds: as `slots`, with the arrays of a step in place of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core.plan import BOTH, Plan
from .._core.protocols import JaxBackend, Launched
from .._core.steps import COLUMNS, Step
from .dispatch import launched
from .shares import Shares
from .slots import (
    COUNTS,
    Found,
    Slot,
    count_dtype,
    first_rows,
    halves,
    is_first,
    joined,
    over_devices,
    per_group,
    plan_of,
    result_dtype,
    table_of,
)

Arrays = Sequence[jax.Array]


@dataclass(frozen=True)
class StepOperation:
    """The launch of a step on (coefficients, leaves..., anchors..., arrays of each role...)."""

    step: Step
    plan: Plan
    dtype: Any
    is_step = True

    def results(self, *operands: Any) -> Launched:
        slots, reals, n = self.plan.slot_count, len(COLUMNS) - COUNTS, len(self.plan.sizes)
        totals = (
            jax.ShapeDtypeStruct((slots, reals), self.dtype),
            jax.ShapeDtypeStruct((slots, COUNTS), count_dtype(self.dtype)),
        )
        state = operands[len(operands) - n * len(self.step.written) :]
        arrays = (*operands[1 : 1 + n], *state)
        return Launched(totals, None, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays))

    def __call__(self, launcher: JaxBackend, *operands: jax.Array) -> Launched:
        return launcher.step(self.step, self.plan, operands[0], operands[1:], self.dtype)


@dataclass(frozen=True)
class Steps:
    """The launch of a step: the new leaves and their new state, and what it finds for each group: reals (groups, 4) and
    counts (groups, 2) in the order of `_core.steps.COLUMNS`. Every array gets the whole batch."""

    backend: str | None
    step: Step
    of_leaf: tuple[int, ...]
    groups: int
    totals = 2

    @property
    def writes(self) -> int:
        return 1 + len(self.step.written)

    def __call__(
        self, batch_rank: int, shares: Shares, tables: Arrays, leaves: Arrays, anchors: Arrays, *others: Arrays
    ) -> Found:
        (coefficients,) = tables
        everything = [coefficients, *leaves, *anchors, *(x for arrays in others for x in arrays)]
        batch = jnp.broadcast_shapes(*{x.shape[:batch_rank] for x in everything})
        arrays = [jnp.broadcast_to(x, batch + x.shape[batch_rank:]) for x in everything[1:]]
        # a device of its own holds all: there are no axes then
        idle = shares.idle or ((),) * len(leaves)
        slots = [Slot(g, s, batch, i) for g, s, i in zip(self.of_leaf, shares.of_leaf, idle, strict=True)]
        first = first_rows(slots)
        table = table_of(coefficients, first, batch)
        plan = plan_of(batch_rank, slots, first, (BOTH,) * len(leaves), leaves)
        found = launched(self.backend, StepOperation(self.step, plan, result_dtype(leaves)), table, *arrays)
        reals, counts = found.totals
        reals = over_devices(reals, first, self.groups, shares.axes)
        return (reals, _counts_over_devices(counts, first, self.groups, shares.axes)), (), found.arrays


def _counts_over_devices(counts: jax.Array, first: dict[Slot, int], groups: int, axes: tuple[str, ...]) -> jax.Array:
    """(rows, 2) of one device -> (batch..., groups, 2). The first of the devices that hold a part counts it."""
    low, high = halves(counts)
    if axes:
        sizes = [int(np.prod(slot.batch)) for slot in first]
        mine = jnp.repeat(jnp.stack([is_first(slot.idle) for slot in first]), np.array(sizes))[:, None]
        low, high = (jnp.where(mine, part, 0) for part in (low, high))
    low, high = (per_group(part, first, groups) for part in (low, high))
    if axes:
        low, high = jax.lax.psum((low, high), axes)
    return joined(low, high)
