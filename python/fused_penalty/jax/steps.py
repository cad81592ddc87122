"""An optimizer's step on all leaves: launches, batching, calculus.

The derivative is that of the formula in jnp, so learning rates and strengths can be learned through a step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core.steps import Step
from . import launch
from .step_formula import stepped
from .step_slots import Steps

Arrays = Sequence[jax.Array]


@dataclass(frozen=True)
class StepSpec:
    """The static part of a step. `of_leaf`: the group of each leaf, its row of the coefficients."""

    backend: str | None
    step: Step
    of_leaf: tuple[int, ...]


class Made(NamedTuple):
    """What a step makes: reals (groups, 4) and counts (groups, 2) in the order of `_core.steps.COLUMNS`, the new leaves
    and their new state, a list for each role in the order of the step."""

    reals: jax.Array
    counts: jax.Array
    leaves: tuple[jax.Array, ...]
    state: tuple[tuple[jax.Array, ...], ...]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def made(spec: StepSpec, coefficients: jax.Array, leaves: Arrays, anchors: Arrays, arrays: Sequence[Arrays]) -> Made:
    """`coefficients` (groups, len(COEFFICIENTS)); `arrays`: a list for each role of the step."""
    totals: list[Any] = []
    written: list[dict[int, jax.Array]] = [{} for _ in range(1 + len(spec.step.written))]
    for members, *operands in launch.launches(leaves, anchors, *arrays):
        call = Steps(spec.backend, spec.step, launch.pick(spec.of_leaf, members), coefficients.shape[-2])
        found, _, new = launch.batched(call, 0)((coefficients,), *operands)
        totals.append(found)
        for k, kind in enumerate(written):
            kind.update(zip(members, new[k * len(members) : (k + 1) * len(members)], strict=True))
    reals, counts = (functools.reduce(jnp.add, kind) for kind in zip(*totals, strict=True))
    new_leaves, *state = (tuple(kind[i] for i in range(len(leaves))) for kind in written)
    return Made(reals, counts, new_leaves, tuple(state))


@made.defjvp
def _rule(spec: StepSpec, primals: Any, tangents: Any) -> Any:
    # The totals are detached: they are reports.
    def formula(coefficients: jax.Array, leaves: Arrays, anchors: Arrays, arrays: Sequence[Arrays]) -> Any:
        new, state = [], []
        for i, x in enumerate(leaves):
            mine = {role: arrays[k][i] for k, role in enumerate(spec.step.arrays)}
            found = stepped(spec.step, x, anchors[i] if anchors else None, mine, coefficients[spec.of_leaf[i]])
            new.append(found.x.astype(x.dtype))
            state.append([found.state[role].astype(mine[role].dtype) for role in spec.step.written])
        return tuple(new), tuple(map(tuple, zip(*state, strict=True)))

    result = made(spec, *primals)
    _, (d_leaves, d_state) = jax.jvp(formula, primals, tangents)
    zero = jnp.zeros_like(result.reals)
    return result, Made(zero, jnp.zeros(result.counts.shape, jax.dtypes.float0), d_leaves, d_state)


make = jax.jit(made, static_argnums=0)
