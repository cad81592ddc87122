"""The fused kernels as XLA custom calls. The same call on every platform: XLA picks the handler that is
registered for the platform it compiles for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..._core.plan import Plan


@dataclass(frozen=True)
class Launcher:
    """The calls for one platform; `chunk` is the length of a chunk that suits it."""

    chunk: int

    def slot_sums(self, plan: Plan, arrays: Sequence[jax.Array], dtype: Any) -> tuple[jax.Array, jax.Array]:
        """(sums (slots, 2), one) of leaves followed by their anchors, if any."""
        outputs = [((plan.slot_count, 2), dtype), ((), np.float32)]
        total, one = self._call("fused_penalty_sums", outputs, plan, arrays)
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
        outputs = [((plan.slot_count, 5), np.float64 if wide else np.uint32)]
        (found,) = self._call("fused_penalty_stats", outputs, plan, arrays)
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
        outputs = [((plan.slot_count, 2), dtype), *((x.shape, x.dtype) for x in arrays[: len(plan.sizes)])]
        return tuple(self._call(target, outputs, plan, arrays, strengths, aliases=aliases))

    def _call(
        self,
        target: str,
        outputs: Sequence[tuple[Any, Any]],
        plan: Plan,
        arrays: Sequence[jax.Array],
        *before: jax.Array,
        aliases: dict[int, int] | None = None,
    ) -> Sequence[jax.Array]:
        """The call on (table, before..., arrays...). Inside a user's `shard_map` the arrays have a type that says over
        which axes they vary: the table and the outputs get it, too."""
        table: Any = dataclasses.replace(plan, chunk=self.chunk).table
        results = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in outputs]
        like = jax.typeof(arrays[0])
        if like.mat.varying:
            table = jax.lax.pcast(table, tuple(like.mat.varying), to="varying")
            whole = NamedSharding(like.sharding.mesh, PartitionSpec())
            results = [x.update(manual_axis_type=like.mat, sharding=whole) for x in results]
        call = jax.ffi.ffi_call(target, results, input_output_aliases=aliases)
        return call(table, *before, *arrays, anchored=len(arrays) > len(plan.sizes))


def register(targets: Mapping[str, Any], platform: str) -> None:
    """Makes the handlers known to XLA; must come before anything is compiled that calls them."""
    for name, capsule in targets.items():
        jax.ffi.register_ffi_target(name, capsule, platform=platform)
