"""The fused kernels as XLA custom calls. The same call on every platform: XLA picks the handler that is
registered for the platform it compiles for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ._plan import Plan


@dataclass(frozen=True)
class Launcher:
    """The calls for one platform; `chunk` is the length of a chunk that suits it."""

    chunk: int

    def slot_sums(self, plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, jax.Array]:
        """(sums (slots, 2), one) of leaves followed by their anchors, if any."""
        outputs = (jax.ShapeDtypeStruct((plan.slot_count, 2), dtype), jax.ShapeDtypeStruct((), np.float32))
        call = jax.ffi.ffi_call("fused_penalty_sums", outputs)
        total, one = call(self._table(plan), *arrays, anchored=_anchored(plan, arrays))
        return total, one

    def slot_gradients(
        self, plan: Plan, strengths: jax.Array, arrays: Sequence[jax.Array], dtype: Any
    ) -> tuple[jax.Array, ...]:
        """(sums (slots, 2), gradient...): strengths (slots, 2) hold the factors of sign(d) and of d."""
        outputs = [jax.ShapeDtypeStruct((plan.slot_count, 2), dtype)]
        outputs += [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays[: len(plan.sizes)]]
        call = jax.ffi.ffi_call("fused_penalty_gradient", outputs)
        return tuple(call(self._table(plan), strengths, *arrays, anchored=_anchored(plan, arrays)))

    def _table(self, plan: Plan) -> np.ndarray:
        return dataclasses.replace(plan, chunk=self.chunk).table


def register(targets: Mapping[str, Any], platform: str) -> None:
    """Makes the handlers known to XLA; must come before anything is compiled that calls them."""
    for name, capsule in targets.items():
        jax.ffi.register_ffi_target(name, capsule, platform=platform)


def _anchored(plan: Plan, arrays: Sequence[Any]) -> bool:
    return len(arrays) > len(plan.sizes)
