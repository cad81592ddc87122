"""The fused kernels as XLA custom calls. The same call on every platform: XLA picks the handler that is
registered for the platform it compiles for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..._core.backends import Launched
from ..._core.operations import Op
from ..._core.plan import Plan

Result = tuple[tuple[int, ...], Any]  # shape and dtype


@dataclass(frozen=True)
class Launcher:
    """The calls for one platform. `chunk` is the length of a chunk that suits it; `scratch_bytes` tells by operation,
    chunks and addresses what its kernels need beside operands and results, None where that is nothing.

    Scratch is one more result, which nobody reads: so XLA plans its memory, and knows it when it replays the call.
    """

    chunk: int
    scratch_bytes: Callable[[int, int, int], int] | None = None

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
        if op is Op.STATS:
            (found,) = self._call("fused_penalty_stats", op, plan, (), arrays, [self._stats(plan, dtype)])
            return Launched(_split(found), None, ())
        totals = ((plan.slot_count, len(op.columns)), dtype)
        if coefficients is None:
            total, one = self._call("fused_penalty_sums", op, plan, (), arrays, [totals, ((), np.float32)])
            return Launched((total,), one, ())
        target = {Op.GRADIENT: "fused_penalty_gradient", Op.PROX: "fused_penalty_prox"}[op]
        written = [(x.shape, x.dtype) for x in arrays[: len(plan.sizes)]]
        total, *new = self._call(target, op, plan, (coefficients,), arrays, [totals], written, in_place=in_place)
        return Launched((total,), None, tuple(new))

    def _stats(self, plan: Plan, dtype: Any) -> tuple[Any, Any]:
        # Of 32-bit results the counts are uint32, so the reals travel as the bits of one.
        return (plan.slot_count, len(Op.STATS.columns)), np.float64 if dtype == np.float64 else np.uint32

    def _call(
        self,
        target: str,
        op: Op,
        plan: Plan,
        before: Sequence[jax.Array],
        arrays: Sequence[jax.Array],
        found: Sequence[Result],
        written: Sequence[Result] = (),
        *,
        in_place: bool = False,
    ) -> Sequence[jax.Array]:
        """The call on (table, before..., arrays...) for (found..., [scratch], written...), without the scratch. Inside
        a user's `shard_map` the arrays have a type that says over which axes they vary: the table and the results get
        it, too."""
        table: Any = dataclasses.replace(plan, chunk=self.chunk).table
        scratch = self._scratch(op, len(table), len(arrays) + len(written))
        results = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (*found, *scratch, *written)]
        first = len(found) + len(scratch)  # of what is written
        aliases = {1 + len(before) + i: first + i for i in range(len(written))} if in_place else None
        like = jax.typeof(arrays[0])
        if like.mat.varying:
            table = jax.lax.pcast(table, tuple(like.mat.varying), to="varying")
            whole = NamedSharding(like.sharding.mesh, PartitionSpec())
            results = [x.update(manual_axis_type=like.mat, sharding=whole) for x in results]
        call = jax.ffi.ffi_call(target, results, input_output_aliases=aliases)
        made = call(table, *before, *arrays, anchored=len(arrays) > len(plan.sizes))
        return [*made[: len(found)], *made[first:]]

    def _scratch(self, op: Op, chunks: int, addresses: int) -> Sequence[Result]:
        return [((self.scratch_bytes(op, chunks, addresses),), np.uint8)] if self.scratch_bytes else []


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
