"""Compiles jitted functions for an H100 that is not here, and prints what XLA made of them, as JSON.

Run by test_h100.py in a process of its own, with jax-cuda13-plugin and jax-cuda13-pjrt on the path.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
DUMP = Path(tempfile.mkdtemp())
os.environ["XLA_FLAGS"] = f"--xla_dump_to={DUMP} --xla_dump_hlo_as_text"

import jax
import jax.numpy as jnp
import jax_plugins.xla_cuda13  # noqa: F401  makes the platform known
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.models import trees
from benchmarks.scale.hlo import counts
from fused_penalty.jax import optim, penalty, penalty_and_grad, prox, stats

L1, L2 = 1e-5, 1e-4
CONFIG = Path(__file__).parent / "h100_target_config.txtpb"


def mesh_of(topology: str, shape: tuple[int, ...], axes: AxisType = AxisType.Auto) -> Mesh:
    """A mesh of H100s: topology is slices x hosts x GPUs."""
    described = topologies.get_topology_desc("h100", "cuda", target_config=CONFIG.read_text(), topology=topology)
    names = tuple("xy"[: len(shape)])
    return Mesh(np.array(described.devices).reshape(shape), names, axis_types=(axes,) * len(shape))


def abstract(tree: Any, mesh: Mesh) -> Any:
    """Matrices are sharded over the last axis of the mesh, what it does not divide and vectors are replicated."""
    axis = mesh.axis_names[-1]

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(axis) if len(x.shape) > 1 and x.shape[0] % mesh.shape[axis] == 0 else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(leaf, tree)


def naive(p: Any) -> jax.Array:
    return sum(L1 * jnp.sum(jnp.abs(x)) + L2 * jnp.sum(x * x) for x in jax.tree.leaves(p))


def ours(p: Any) -> jax.Array:
    return penalty(p, L1, L2)


def moved(p: Any, g: Any) -> Any:
    """A step of proximal gradient descent."""
    return prox(jax.tree.map(lambda w, d: w - 0.1 * d, p, g), L1, L2, step=0.1)


def with_gradient(optimizer: optax.GradientTransformation, penalty_of: Callable[[Any], jax.Array] | None) -> Any:
    """A donated step on external gradients; None: the decay step, the formula by hand and no value."""

    def step(p: Any, state: Any, g: Any) -> Any:
        if penalty_of is None:
            value, extra = jnp.float32(0), jax.tree.map(lambda w: L1 * jnp.sign(w) + 2 * L2 * w, p)
        else:
            value, extra = jax.value_and_grad(penalty_of)(p)
        updates, state = optimizer.update(jax.tree.map(jnp.add, g, extra), state, p)
        return optax.apply_updates(p, updates), state, value

    return jax.jit(step, donate_argnums=(0, 1))


def describe(jitted: Any, *args: Any, mesh: Mesh) -> dict[str, Any]:
    start = time.perf_counter()
    compiled = jitted.lower(*abstract(args, mesh)).compile()
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    # What will run, in order; the body of a command buffer (a CUDA graph) is indented under it. XLA makes one of five
    # launches and more, and only then lists the thunks a second time.
    lists = sorted(DUMP.glob("*.thunk_sequence*.txt"), key=lambda f: f.stat().st_mtime_ns)
    newest = lists[-1]
    thunks = re.findall(r"^( *)\d+: (k\w+)", newest.read_text(), re.MULTILINE)
    shutil.rmtree(DUMP)
    DUMP.mkdir()
    return {
        "calls": text.count('custom_call_target="fused_penalty'),
        "calls_in_a_command_buffer": sum(kind == "kCustomCall" and bool(indent) for indent, kind in thunks),
        "launches": sum(kind in ("kCustomKernel", "kKernel", "kCustomCall", "kCopy") for _, kind in thunks),
        "copies": len(re.findall(r" copy(?:-start)?\(", text)) + len(re.findall(r"calls=%?wrapped_copy", text)),
        "collectives": {k: n for k, n in counts(text).items() if k != "launches"},
        "temp": compiled.memory_analysis().temp_size_in_bytes,
        "seconds": round(seconds, 2),
    }


def main() -> None:
    shapes = {k: np.empty(s, np.float32) for k, s in trees.MODELS["gpt2"].items()}
    many = {k: np.empty(s, np.float32) for k, s in trees.MODELS["many"].items()}
    one = mesh_of("1x1x1", (1,))
    both = jax.jit(lambda p: penalty_and_grad(p, L1, L2))
    proximal = jax.jit(lambda p: prox(p, L1, L2, step=0.1), donate_argnums=0)
    found = {
        "penalty": describe(jax.jit(ours), shapes, mesh=one),
        "penalty of 2,000 leaves": describe(jax.jit(ours), many, mesh=one),
        "penalty_and_grad": describe(both, shapes, mesh=one),
        "stats": describe(jax.jit(lambda p: stats(p)[:5]), shapes, mesh=one),
        "prox": describe(proximal, shapes, mesh=one),
        "prox after a step": describe(jax.jit(moved, donate_argnums=0), shapes, shapes, mesh=one),
        "naive": describe(jax.jit(naive), shapes, mesh=one),
    }
    for name, optimizer in (("SGD", optax.sgd(1e-2)), ("AdamW", optax.adamw(1e-3))):
        for kind, penalty_of in (("penalty", ours), ("decay", None), ("naive", naive)):
            step = with_gradient(optimizer, penalty_of)
            state = jax.eval_shape(optimizer.init, shapes)
            found[f"{name} step, {kind}"] = describe(step, shapes, state, shapes, mesh=one)
    for name, ours_alone in (("sgd", optim.sgd(1e-2, 0.9, l1=L1)), ("adamw", optim.adamw(1e-3, l1=L1, l2=L2))):
        state = jax.eval_shape(ours_alone.init, shapes)
        whole = jax.jit(ours_alone.step, donate_argnums=(0, 2))
        found[f"optim.{name}"] = describe(whole, shapes, shapes, state, mesh=one)
    for axes in (AxisType.Auto, AxisType.Explicit):
        eight = mesh_of("2x1x4", (2, 4), axes)  # two slices of four GPUs
        sgd = optax.sgd(1e-2)
        state = jax.eval_shape(sgd.init, shapes)
        found |= {
            f"{axes.name} mesh, penalty": describe(jax.jit(ours), shapes, mesh=eight),
            f"{axes.name} mesh, gradient": describe(jax.jit(jax.grad(ours)), shapes, mesh=eight),
            f"{axes.name} mesh, penalty_and_grad": describe(both, shapes, mesh=eight),
            f"{axes.name} mesh, prox": describe(proximal, shapes, mesh=eight),
            f"{axes.name} mesh, SGD step": describe(with_gradient(sgd, ours), shapes, state, shapes, mesh=eight),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
