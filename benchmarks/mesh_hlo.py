"""Launches and collectives of the penalty on a mesh, counted in the HLO that XLA compiles for virtual CPU devices.

    python benchmarks/mesh_hlo.py 1 2 4 8 16 32 64

prints one line of JSON for each number of devices: the penalty's value, its gradient and both, beside the sum a leaf.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

COUNTED = {
    "launches": r'custom_call_target="fused_penalty',
    "all_reduces": r" all-reduce(?:-start)?\(",
    "all_gathers": r" all-gather(?:-start)?\(",
    "other_collectives": r" (?:all-to-all|collective-permute|reduce-scatter|collective-broadcast)(?:-start)?\(",
}


def counts(hlo: str) -> dict[str, int]:
    """How often each of COUNTED stands in the text of a compiled module: what every device runs."""
    return {name: len(re.findall(pattern, hlo)) for name, pattern in COUNTED.items()}


def compiled_counts(f: Any, *args: Any) -> dict[str, int]:
    import jax

    return counts(jax.jit(f).lower(*args).compile().as_text())


def of_penalty(devices: int, layers: int = 24, width: int = 256) -> dict[str, dict[str, int]]:
    """The counts for a stack of sharded weights and replicated biases over `devices` of this process."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from fused_penalty.jax import penalty, penalty_and_grad

    mesh = jax.make_mesh((devices,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])

    def leaf(shape: tuple[int, ...], *spec: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    params = [{"w": leaf((width, width), "x"), "b": leaf((width,))} for _ in range(layers)]

    def ours(p: Any) -> Any:
        return penalty(p, 1e-5, 1e-4)

    def naive(p: Any) -> Any:
        return sum(1e-5 * jnp.sum(jnp.abs(x)) + 1e-4 * jnp.sum(x * x) for x in jax.tree.leaves(p))

    functions = {
        "penalty": ours,
        "its gradient": jax.grad(ours),
        "value and gradient": jax.value_and_grad(ours),
        "penalty_and_grad": lambda p: penalty_and_grad(p, 1e-5, 1e-4),
        "sum a leaf": naive,
    }
    return {name: compiled_counts(f, params) for name, f in functions.items()}


def main(numbers: list[str]) -> None:
    """Each number of devices in a process of its own, since it is set before JAX starts."""
    if len(numbers) == 1:
        print(json.dumps({"devices": int(numbers[0]), **of_penalty(int(numbers[0]))}))
        return
    for n in numbers:
        flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
        subprocess.run([sys.executable, __file__, n], check=True, env={**os.environ, **flags}, timeout=600)


if __name__ == "__main__":
    main(sys.argv[1:] or ["1", "2", "4", "8", "16", "32", "64"])
