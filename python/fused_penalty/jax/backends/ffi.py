"""The fused kernels as one XLA custom call, with the operation as an attribute: XLA picks the handler of the platform
that it compiles for. csrc/jax_arrays.h describes its operands and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..._core.backends import Launched
from ..._core.operations import Op
from ..._core.plan import Plan

TARGET = "fused_penalty"
Result = tuple[tuple[int, ...], Any]  # shape and dtype


@dataclass(frozen=True)
class Launcher:
    """A `JaxBackend` for one platform. `chunk` is the length of its chunks; `scratch_bytes` says how much
    memory, by operation, chunks and addresses, its kernels need beside operands and results; None if they need none.

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
        """`arrays`: the leaves, then their anchors, if any. In place, each new leaf takes the leaf's memory; if that is
        still needed, XLA copies it first."""
        table = dataclasses.replace(plan, chunk=self.chunk).table
        leaves = arrays[: len(plan.sizes)]
        written = [(x.shape, x.dtype) for x in leaves] if op.writes else []
        # Of 32-bit totals with counts among them, the reals travel as the bits of uint32.
        bits = np.uint32 if op.counts and dtype == np.float32 else dtype
        found: list[Result] = [((plan.slot_count, len(op.columns)), bits)]
        if not op.writes:
            found.append(((), np.float32))  # the echo
        scratch = self._scratch(op, len(table), len(arrays) + len(written))
        before = [] if coefficients is None else [coefficients]
        first = len(found) + len(scratch)  # of what is written
        aliases = {1 + len(before) + i: first + i for i in range(len(written))} if in_place else None
        made = _call([*found, *scratch, *written], aliases, op, table, before, arrays, len(arrays) > len(leaves))
        totals = _split(made[0]) if op.counts else (made[0],)
        return Launched(totals, None if op.writes else made[1], tuple(made[first:]))

    def _scratch(self, op: Op, chunks: int, addresses: int) -> Sequence[Result]:
        return [((self.scratch_bytes(op, chunks, addresses),), np.uint8)] if self.scratch_bytes else []


def _call(
    results: Sequence[Result],
    aliases: dict[int, int] | None,
    op: Op,
    table: Any,
    before: Sequence[jax.Array],
    arrays: Sequence[jax.Array],
    anchored: bool,
) -> Sequence[jax.Array]:
    """The call on (table, before..., arrays...). Inside a user's `shard_map` the arrays' types say over which
    axes they vary; the table and the results get the same."""
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results]
    like = jax.typeof(arrays[0])
    if like.mat.varying:
        table = jax.lax.pcast(table, tuple(like.mat.varying), to="varying")
        whole = NamedSharding(like.sharding.mesh, PartitionSpec())
        shapes = [x.update(manual_axis_type=like.mat, sharding=whole) for x in shapes]
    call = jax.ffi.ffi_call(TARGET, shapes, input_output_aliases=aliases)
    made: Sequence[jax.Array] = call(table, *before, *arrays, op=np.int32(op), anchored=anchored)
    return made


def _split(found: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(Σ|d|, Σd², max|d| (slots, 3), counts of zeros and of non-finite numbers (slots, 2))."""
    if found.dtype == np.float64:
        return found[:, :3], found[:, 3:].astype(np.int64)
    counts = jax.numpy.minimum(found[:, 3:], np.iinfo(np.int32).max).astype(np.int32)
    return jax.lax.bitcast_convert_type(found[:, :3], np.float32), counts


def register(handler: Any, platform: str) -> None:
    """Register the handler with XLA, before anything that calls it is compiled."""
    jax.ffi.register_ffi_target(TARGET, handler, platform=platform)
