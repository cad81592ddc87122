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

from ..._core.backends import Launched
from ..._core.operations import Op
from ..._core.plan import Plan


@dataclass(frozen=True)
class Launcher:
    """The calls for one platform; `chunk` is the length of a chunk that suits it."""

    chunk: int

    def launch(
        self,
        op: Op,
        plan: Plan,
        coefficients: jax.Array | None,
        arrays: Sequence[jax.Array],
        dtype: Any,
        *,
        in_place: bool,
    ) -> Launched:
        """Leaves, then their anchors, if any. In place each new leaf takes the leaf's memory: where that is still
        needed, XLA copies it first."""
        n = len(plan.sizes)
        if op is Op.STATS:
            (found,) = self._call("fused_penalty_stats", [self._stats(plan, dtype)], plan, arrays)
            return Launched(_split(found), None, ())
        totals = ((plan.slot_count, len(op.columns)), dtype)
        if coefficients is None:
            total, one = self._call("fused_penalty_sums", [totals, ((), np.float32)], plan, arrays)
            return Launched((total,), one, ())
        outputs = [totals, *((x.shape, x.dtype) for x in arrays[:n])]
        aliases = {2 + i: 1 + i for i in range(n)} if in_place else None
        target = {Op.GRADIENT: "fused_penalty_gradient", Op.PROX: "fused_penalty_prox"}[op]
        total, *new = self._call(target, outputs, plan, arrays, coefficients, aliases=aliases)
        return Launched((total,), None, tuple(new))

    def _stats(self, plan: Plan, dtype: Any) -> tuple[Any, Any]:
        # Of 32-bit results the counts are uint32, so the reals travel as the bits of one.
        return (plan.slot_count, len(Op.STATS.columns)), np.float64 if dtype == np.float64 else np.uint32

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


def _split(found: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(Σ|d|, Σd², max|d| (slots, 3), counts of zeros and of non-finite numbers (slots, 2))."""
    if found.dtype == np.float64:
        return found[:, :3], found[:, 3:].astype(np.int64)
    counts = jax.numpy.minimum(found[:, 3:], np.iinfo(np.int32).max).astype(np.int32)
    return jax.lax.bitcast_convert_type(found[:, :3], np.float32), counts


def register(targets: Mapping[str, Any], platform: str) -> None:
    """Makes the handlers known to XLA; must come before anything is compiled that calls them."""
    for name, capsule in targets.items():
        jax.ffi.register_ffi_target(name, capsule, platform=platform)
