"""Custom calls of an optimizer's step on wrong operands; see forged.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fused_penalty._core.steps import COEFFICIENTS, COLUMNS, Step
from tests.kernels.forged_sizes import F32, Case, N, array, result, table


def step_of(
    step: int,
    *arrays: Any,
    leaves: int = 1,
    written: Sequence[int] = (0,),
    totals: Any = None,
    coefficients: Any = None,
    outs: Sequence[Any] | None = None,
    aliases: bool = True,
    anchored: bool = False,
) -> Callable[[], Any]:
    """A call on the arrays; those at the positions `written` are written in place."""
    outs = [result(*arrays[k].shape, dtype=arrays[k].dtype) for k in written] if outs is None else outs
    results = [result(1, len(COLUMNS), dtype=jnp.uint32) if totals is None else totals, *outs]
    given = jnp.ones((1, len(COEFFICIENTS)), F32) if coefficients is None else coefficients
    alias = {2 + k: 1 + i for i, k in enumerate(written[: len(outs)])} if aliases else None
    call = jax.ffi.ffi_call("fused_penalty_step", results, input_output_aliases=alias)
    return lambda: call(table(N), given, *arrays, step=np.int32(step), anchored=anchored)


def groups() -> dict[str, list[Case]]:
    x, short, half, wide = array(), array(4), array(N, jnp.float16), array(N, jnp.int32)
    wrong = len(COEFFICIENTS) - 1
    return {
        "steps": [
            *((f"code {code}", step_of(code, x, x), "no step") for code in (-1, len(Step), 1 << 30)),
            ("no gradient", step_of(Step.SGD, x), "one array of each kind"),
            ("no momentum", step_of(Step.MOMENTUM, x, x, written=(0, 1)), "one array of each kind"),
            ("three arrays of Adam's four", step_of(Step.ADAM, x, x, x, written=(0,)), "one array of each kind"),
            ("gradient shorter", step_of(Step.SGD, x, short), "gradient"),
            ("gradient of float16", step_of(Step.SGD, x, half), "gradient"),
            ("anchor shorter", step_of(Step.SGD, x, short, x, anchored=True), "anchor"),
            ("leaf of int32", step_of(Step.SGD, wide, wide), "leaf 0"),
            ("leaf of float8", step_of(Step.SGD, array(N, jnp.float8_e5m2), array(N, jnp.float8_e5m2)), "leaf 0"),
            ("momentum shorter", step_of(Step.MOMENTUM, x, x, short, written=(0, 2)), "state of leaf 0"),
            ("momentum of int32", step_of(Step.MOMENTUM, x, x, wide, written=(0, 2)), "state of leaf 0"),
            ("momentum of float16", step_of(Step.MOMENTUM, x, x, half, written=(0, 2)), "state of leaf 0"),
            ("moments of two dtypes", step_of(Step.ADAM, half, half, half, x, written=(0, 2, 3)), "state of leaf 0"),
            ("past the end", step_of(Step.SGD, short, short), "chunk 0"),
        ],
        "results of steps": [
            ("totals of float32", step_of(Step.SGD, x, x, totals=result(1, len(COLUMNS))), "totals"),
            ("totals of two columns", step_of(Step.SGD, x, x, totals=result(1, 2, dtype=jnp.uint32)), "totals"),
            ("no slot", step_of(Step.SGD, x, x, totals=result(0, len(COLUMNS), dtype=jnp.uint32),
                                coefficients=jnp.ones((0, len(COEFFICIENTS)))), "chunk 0"),
            ("coefficients of int8", step_of(
                Step.SGD, x, x, coefficients=jnp.ones((1, len(COEFFICIENTS)), jnp.int8)), "coefficients"),
            ("a coefficient less", step_of(Step.SGD, x, x, coefficients=jnp.ones((1, wrong))), "coefficients"),
            ("of two slots", step_of(Step.SGD, x, x, coefficients=jnp.ones((2, len(COEFFICIENTS)))), "coefficients"),
            ("elsewhere", step_of(Step.SGD, x, x, aliases=False), "where its leaf lies"),
            ("state elsewhere", step_of(
                Step.MOMENTUM, x, x, x, written=(0,), outs=[result(N), result(N)]), "where the old one lies"),
            ("state not written", step_of(Step.MOMENTUM, x, x, x, written=(0,)), "where the old one lies"),
            ("one more", step_of(Step.SGD, x, x, written=(0,), outs=[result(N), result(N)]), "more results"),
        ],
    }  # fmt: skip
