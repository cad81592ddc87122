"""The launch as a primitive of JAX, whose lowering picks the backend for the platform that is compiled for.

`jax.lax.platform_dependent` would do the same, but traces what every platform might need, so also the reference, leaf
by leaf, which takes seconds for thousands of leaves. Batching, derivatives and meshes are dealt with before: a launch
is only ever lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

from .._core import backends
from .._core.errors import bad
from .._core.protocols import JaxBackend, Launched


class Launch(Hashable, Protocol):
    """The static part of a launch. `results` says shapes and dtypes of what it gives for these operands."""

    @property
    def is_step(self) -> bool: ...  # an optimizer's, which not every backend makes

    def results(self, *operands: Any) -> Launched: ...

    def __call__(self, launcher: JaxBackend, *operands: jax.Array) -> Launched: ...


def launched(backend: str | None, launch: Launch, *operands: jax.Array) -> Launched:
    """What the launch gives, from the named backend or from the best one of the platform."""
    shape = jax.tree.structure(launch.results(*operands))
    found: Launched = jax.tree.unflatten(shape, _launch.bind(*operands, backend=backend, launch=launch))
    return found


_launch = Primitive("fused_penalty")
_launch.multiple_results = True


@_launch.def_abstract_eval
def _(*operands: Any, backend: str | None, launch: Launch) -> Sequence[Any]:
    like = operands[-1]  # inside a user's `shard_map` the type says over which axes it varies

    def aval(x: jax.ShapeDtypeStruct) -> Any:
        whole = NamedSharding(like.sharding.mesh, PartitionSpec(*[None] * len(x.shape)))
        return like.update(shape=x.shape, dtype=x.dtype, weak_type=False, sharding=whole)

    return [aval(x) for x in jax.tree.leaves(launch.results(*operands))]


def _on(platform: str) -> Callable[..., list[jax.Array]]:
    def run(*operands: jax.Array, backend: str | None, launch: Launch) -> list[jax.Array]:
        return jax.tree.leaves(launch(_launcher(backend, platform, launch), *operands))

    return run


def _launcher(backend: str | None, platform: str, launch: Launch) -> JaxBackend:
    rows = backends.rows("jax", backend, steps=launch.is_step)
    for row in rows:
        if row.fits(platform) and (backend or row.unfit() is None):
            if backend is None:
                backends.warn_if_slow(row, platform)
            launcher: JaxBackend = row.launcher()
            return launcher
    raise bad(
        ValueError, "backend", f"{rows[0].name!r} runs on {', '.join(rows[0].devices)}, not on {platform}",
        "Pass backend=None to choose automatically",
    )  # fmt: skip


mlir.register_lowering(_launch, mlir.lower_fun(_on("any other platform")))
for _platform in dict.fromkeys(p for row in backends.BACKENDS if row.framework == "jax" for p in row.devices):
    if _platform != "any":
        mlir.register_lowering(_launch, mlir.lower_fun(_on(_platform)), platform=_platform)


@_launch.def_impl
def _(*operands: jax.Array, backend: str | None, launch: Launch) -> list[jax.Array]:
    """Under `jax.disable_jit`."""
    (platform,) = {device.platform for device in operands[-1].devices()}
    return _on("cuda" if platform == "gpu" else platform)(*operands, backend=backend, launch=launch)
