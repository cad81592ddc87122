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
        return self._write("fused_penalty_gradient", plan, strengths, arrays, dtype)

    def slot_prox(
        self, plan: Plan, strengths: jax.Array, arrays: Sequence[jax.Array], dtype: Any
    ) -> tuple[jax.Array, ...]:
        """(new leaf...): strengths (slots, 2) hold the threshold and the factor after it."""
        return self._write("fused_penalty_prox", plan, strengths, arrays, dtype)[1:]

    def slot_prox_in_place(
        self, plan: Plan, strengths: jax.Array, arrays: Sequence[jax.Array], dtype: Any
    ) -> tuple[jax.Array, ...]:
        """The same; each new leaf takes the leaf's memory. Where that is still needed, XLA copies it first."""
        aliases = {2 + i: 1 + i for i in range(len(plan.sizes))}
        return self._write("fused_penalty_prox", plan, strengths, arrays, dtype, aliases)[1:]

    def slot_stats(self, plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, jax.Array]:
        """(Σ|d|, Σd², max|d| (slots, 3), counts of zeros and of non-finite numbers (slots, 2))."""
        wide = dtype == np.float64
        # Of 32-bit results the counts are uint32, so the reals travel as the bits of one.
        output = jax.ShapeDtypeStruct((plan.slot_count, 5), np.float64 if wide else np.uint32)
        call = jax.ffi.ffi_call("fused_penalty_stats", output)
        found = call(self._table(plan), *arrays, anchored=_anchored(plan, arrays))
        if wide:
            return found[:, :3], found[:, 3:].astype(np.int64)
        counts = jax.numpy.minimum(found[:, 3:], np.iinfo(np.int32).max).astype(np.int32)
        return jax.lax.bitcast_convert_type(found[:, :3], np.float32), counts

    def _write(
        self,
        target: str,
        plan: Plan,
        strengths: jax.Array,
        arrays: Sequence[jax.Array],
        dtype: Any,
        aliases: dict[int, int] | None = None,
    ) -> tuple[jax.Array, ...]:
        outputs = [jax.ShapeDtypeStruct((plan.slot_count, 2), dtype)]
        outputs += [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays[: len(plan.sizes)]]
        call = jax.ffi.ffi_call(target, outputs, input_output_aliases=aliases)
        return tuple(call(self._table(plan), strengths, *arrays, anchored=_anchored(plan, arrays)))

    def _table(self, plan: Plan) -> np.ndarray:
        return dataclasses.replace(plan, chunk=self.chunk).table


def register(targets: Mapping[str, Any], platform: str) -> None:
    """Makes the handlers known to XLA; must come before anything is compiled that calls them."""
    for name, capsule in targets.items():
        jax.ffi.register_ffi_target(name, capsule, platform=platform)


def _anchored(plan: Plan, arrays: Sequence[Any]) -> bool:
    return len(arrays) > len(plan.sizes)
