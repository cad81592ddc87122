"""Meshes of eight devices, leaves sharded over them, and what jnp makes of the same: for the tests of sharding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.scale.hlo import counts
from tests.support.frontends import DTYPES

L1, L2 = 0.01, 0.003
SIZES = {"1x8": (1, 8), "2x4": (2, 4), "2x2x2": (2, 2, 2)}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
Tree = dict[str, Any]


@functools.cache
def mesh_of(size: str, kind: str) -> Mesh:
    sizes = SIZES[size]
    return jax.make_mesh(sizes, tuple("xyz"[: len(sizes)]), axis_types=(KINDS[kind],) * len(sizes))


def specs_of(mesh: Mesh) -> dict[str, P]:
    """From no axis to all of them, on one dimension, on several, and in another order."""
    axes = mesh.axis_names
    specs = {f"one axis, {a}, dimension {d}": P(*[None] * d, a) for a in axes for d in range(3)}
    specs |= {"no axis": P(), "all on one": P(axes), "all reversed on one": P(None, axes[::-1])}
    return specs | {"each": P(*axes), "each, reversed": P(*axes[::-1]), "two on one": P(None, None, axes[-2:])}


def leaves_of(specs: dict[str, P]) -> Tree:
    """A leaf for each spec; the dtypes take turns. And what cannot be sharded: a scalar and an empty leaf."""
    rng = np.random.default_rng(0)
    dtypes = [DTYPES[d] for d in ("float32", "bfloat16", "float16")]
    tree = {n: rng.standard_normal((16, 8, 8)).astype(dtypes[i % 3]) for i, n in enumerate(specs)}
    return tree | {"scalar": np.float32(-1.5), "empty": np.zeros((0, 8), np.float32)}


def placed(mesh: Mesh, tree: Tree, specs: dict[str, P]) -> Tree:
    return {n: jax.device_put(x, NamedSharding(mesh, specs.get(n, P()))) for n, x in tree.items()}


def run(f: Callable[..., Any], *args: Any) -> tuple[Any, dict[str, int]]:
    """(what the jitted function returns, what was counted in its HLO)."""
    compiled = jax.jit(f).lower(*args).compile()
    return compiled(*args), counts(compiled.as_text())


def small(seed: int = 0, batch: tuple[int, ...] = ()) -> Tree:
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal((*batch, 4, 8), np.float32), "b": rng.standard_normal((*batch, 8), np.float32)}


def naive(p: Tree, l1: Any = L1, l2: Any = L2, anchor: Tree | None = None) -> Any:
    if anchor is not None:
        p = jax.tree.map(jnp.subtract, p, anchor)
    return sum(l1 * jnp.sum(jnp.abs(x)) + l2 * jnp.sum(x * x) for x in jax.tree.leaves(p))


SPECS = {"w": P("x", "y"), "b": P("y")}
