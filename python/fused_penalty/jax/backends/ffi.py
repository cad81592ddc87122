"""The fused kernels as one XLA custom call, with the operation as an attribute: XLA picks the handler of the platform
that it compiles for. csrc/jax_arrays.h and csrc/jax_steps.h describe its operands and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..._core.operations import Op
from ..._core.plan import Plan
from ..._core.protocols import Launched
from ..._core.steps import COLUMNS, Step
from ..versions import as_varying, varying, varying_as

TARGET, STEP_TARGET = "fused_penalty", "fused_penalty_step"
Result = tuple[tuple[int, ...], Any]  # shape and dtype


@dataclass(frozen=True)
class Launcher:
    """A `JaxBackend` for one platform. `chunk` is the length of its chunks; `scratch_bytes` says how much memory, by
    operation, chunks and addresses, its kernels need beside operands and results, `step_scratch_bytes` the same by
    step, anchored or not, chunks and leaves; None if they need none.

    Scratch is one more result, which nobody reads: so XLA plans its memory, and knows it when it replays the call.
    """

    chunk: int
    scratch_bytes: Callable[[int, int, int], int] | None = None
    step_scratch_bytes: Callable[[int, bool, int, int], int] | None = None

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
        scratch = _bytes(self.scratch_bytes, op, len(table), len(arrays) + len(written))
        before = [] if coefficients is None else [coefficients]
        first = len(found) + len(scratch)  # of what is written
        aliases = {1 + len(before) + i: first + i for i in range(len(written))} if in_place else None
        made = _call(
            TARGET, [*found, *scratch, *written], aliases, table, before, arrays,
            op=np.int32(op), anchored=len(arrays) > len(leaves),
        )  # fmt: skip
        totals = _split(made[0], 3) if op.counts else (made[0],)
        return Launched(totals, None if op.writes else made[1], tuple(made[first:]))

    def step(
        self, step: Step, plan: Plan, coefficients: jax.Array, arrays: Sequence[jax.Array], dtype: Any
    ) -> Launched:
        """What is written takes the memory of what was there; what is still needed of that, XLA copies first."""
        table = dataclasses.replace(plan, chunk=self.chunk).table
        n = len(plan.sizes)
        anchored = len(arrays) > n * (1 + len(step.arrays))
        lists = [arrays[i : i + n] for i in range(0, len(arrays), n)]
        read_only = (1 if anchored else 0) + (len(step.arrays) - len(step.written))
        kept = [0, *range(1 + read_only, len(lists))]  # the leaves, and the state that is written
        bits = np.uint32 if dtype == np.float32 else dtype
        found: list[Result] = [((plan.slot_count, len(COLUMNS)), bits)]
        found += _bytes(self.step_scratch_bytes, step, anchored, len(table), n)
        written = [(x.shape, x.dtype) for k in kept for x in lists[k]]
        operands = [2 + k * n + i for k in kept for i in range(n)]  # after the table and the coefficients
        aliases = {operand: len(found) + i for i, operand in enumerate(operands)}
        made = _call(
            STEP_TARGET, [*found, *written], aliases, table, [coefficients], arrays,
            step=np.int32(step), anchored=anchored,
        )  # fmt: skip
        return Launched(_split(made[0], COLUMNS.index("zeros")), None, tuple(made[len(found) :]))


def _bytes(needed: Callable[..., int] | None, *of: int) -> Sequence[Result]:
    """Scratch as a result; none where the platform needs none."""
    return [((needed(*of),), np.uint8)] if needed else []


def _call(
    target: str,
    results: Sequence[Result],
    aliases: dict[int, int] | None,
    table: Any,
    before: Sequence[jax.Array],
    arrays: Sequence[jax.Array],
    **attributes: Any,
) -> Sequence[jax.Array]:
    """The call on (table, before..., arrays...). Inside a user's `shard_map` the arrays' types say over which
    axes they vary; the table and the results get the same."""
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results]
    like = arrays[0]
    if axes := varying(like):
        table = as_varying(table, axes)
        whole = NamedSharding(jax.typeof(like).sharding.mesh, PartitionSpec())
        shapes = [varying_as(x, like, whole) for x in shapes]
    # XLA asks of each operand of a call with aliases whether to fuse its producer, in n^3 for n aliases. Not so of a
    # call with side effects, and a write in place is one.
    call = jax.ffi.ffi_call(target, shapes, input_output_aliases=aliases, has_side_effect=aliases is not None)
    made: Sequence[jax.Array] = call(table, *before, *arrays, **attributes)
    return made


def _split(found: jax.Array, reals: int) -> tuple[jax.Array, jax.Array]:
    """(so many columns of reals, counts)."""
    if found.dtype == np.float64:
        return found[:, :reals], found[:, reals:].astype(np.int64)
    counts = jax.numpy.minimum(found[:, reals:], np.iinfo(np.int32).max).astype(np.int32)
    return jax.lax.bitcast_convert_type(found[:, :reals], np.float32), counts


def register(handlers: Mapping[str, Any], platform: str) -> None:
    """Register the handler of each target with XLA, or its handlers by stage, before anything that calls it is
    compiled."""
    for target, handler in handlers.items():
        jax.ffi.register_ffi_target(target, handler, platform=platform)
