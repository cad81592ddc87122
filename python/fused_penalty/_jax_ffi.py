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

from ._plan import Plan


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
        outputs = [((plan.slot_count, 2), dtype), *((x.shape, x.dtype) for x in arrays[: len(plan.sizes)])]
        return tuple(self._call("fused_penalty_gradient", outputs, plan, arrays, strengths))

    def _call(
        self,
        target: str,
        outputs: Sequence[tuple[Any, Any]],
        plan: Plan,
        arrays: Sequence[jax.Array],
        *before: jax.Array,
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
        return jax.ffi.ffi_call(target, results)(table, *before, *arrays, anchored=len(arrays) > len(plan.sizes))


def register(targets: Mapping[str, Any], platform: str) -> None:
    """Makes the handlers known to XLA; must come before anything is compiled that calls them."""
    for name, capsule in targets.items():
        jax.ffi.register_ffi_target(name, capsule, platform=platform)
