"""The fused kernels as XLA custom calls. The same call on every platform: XLA picks the handler that is
registered for the platform it compiles for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ._plan import Plan


def register(targets: Mapping[str, Any], platform: str) -> None:
    for name, capsule in targets.items():
        jax.ffi.register_ffi_target(name, capsule, platform=platform)


def _anchored(plan: Plan, arrays: Sequence[Any]) -> bool:
    return len(arrays) > len(plan.sizes)


def slot_sums(plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(sums (slots, 2), one) of leaves followed by their anchors, if any."""
    outputs = (jax.ShapeDtypeStruct((plan.slot_count, 2), dtype), jax.ShapeDtypeStruct((), np.float32))
    call = jax.ffi.ffi_call("fused_penalty_sums", outputs)
    total, one = call(plan.table, *arrays, anchored=_anchored(plan, arrays))
    return total, one


def slot_gradients(plan: Plan, strengths: jax.Array, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, ...]:
    """(sums (slots, 2), gradient...): strengths (slots, 2) hold the factors of sign(d) and of d."""
    outputs = [jax.ShapeDtypeStruct((plan.slot_count, 2), dtype)]
    outputs += [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays[: len(plan.sizes)]]
    call = jax.ffi.ffi_call("fused_penalty_gradient", outputs)
    return tuple(call(plan.table, strengths, *arrays, anchored=_anchored(plan, arrays)))
