"""Counts what the penalty costs in launches and collectives, ours and naive; prints it as JSON.

    python -m benchmarks.scale.count [--devices 1 2 4 ...]

JAX: the compiled HLO of GPT-2's shapes over a mesh of virtual CPU devices, each leaf sharded along its first dimension
that divides. torch: the operations that reach memory, for a model of DTensors on one rank. Run it in a process of its
own: the number of devices is fixed when JAX starts.
"""

from __future__ import annotations

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=64"

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torch.distributed as dist
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.contenders import jax as contend_jax
from benchmarks.models import trees
from benchmarks.models.cases import L1, L2
from benchmarks.scale.hlo import counts
from fused_penalty.torch import add_grad_

DEVICES = (1, 2, 4, 8, 16, 32, 64)
VERSIONS = {"ours": contend_jax.penalty, "naive": contend_jax.penalty_per_leaf}
WORK = ("fusion", "reduce", "custom-call", "copy", "convert", "convolution", "dot")  # HLO that runs over memory


# JAX


def along(shape: tuple[int, ...], n: int) -> PartitionSpec:
    """Sharded along the first dimension that n divides."""
    axis = next((i for i, d in enumerate(shape) if d % n == 0), None)
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "x")


def step(penalty_of: Callable[[Any], jax.Array]) -> Any:
    """A donated SGD step on external gradients."""

    def f(params: Any, gradients: Any) -> Any:
        value, extra = jax.value_and_grad(penalty_of)(params)
        return jax.tree.map(lambda w, g, e: w - 0.1 * (g + e), params, gradients, extra), value

    return jax.jit(f, donate_argnums=0)


def in_hlo(jitted: Any, *args: Any) -> dict[str, int]:
    text = jitted.lower(*args).compile().as_text()
    entry = text[text.index("\nENTRY") :]
    operations = re.findall(r" = (?:\([^()]*\)|\S+) ([a-z][a-z-]*)\(", entry)
    return {"operations": sum(op in WORK for op in operations)} | counts(text)


def jax_counts(devices: list[int]) -> list[dict[str, Any]]:
    rows = []
    for n in devices:
        mesh = jax.make_mesh((n,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n])
        params = {
            name: jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, along(shape, n)))
            for name, shape in trees.MODELS["gpt2"].items()
        }
        for version, penalty_of in VERSIONS.items():
            for what, jitted, args in (
                ("value", jax.jit(penalty_of), (params,)),
                ("step", step(penalty_of), (params,) * 2),
            ):
                rows.append({"devices": n, "version": version, "of": what} | in_hlo(jitted, *args))
    return rows


# torch


class Operations(TorchDispatchMode):
    """The operations on plain tensors that read or write memory: all of them, those over whole leaves, and how many
    times these read or write a leaf."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.all, self.large, self.passes, self.collectives = size, 0, 0, 0, 0

    def _is_leaf(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x.numel() == self.size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:
            return NotImplemented  # it comes back with the local tensors
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if name.startswith(("c10d.", "_c10d_functional.all")):
            self.collectives += 1
        elif not (func.is_view or name.startswith(("_c10d_functional.", "aten.detach", "aten.empty", "aten._to_copy"))):
            leaves = torch.utils._pytree.tree_leaves((args, kwargs, out))
            large = sum(map(self._is_leaf, [*leaves, *_written(func, args)]))
            self.all += 1
            self.large += large > 0
            self.passes += large
        return out


def _written(func: Any, args: Any) -> list[Any]:
    """What the operation writes besides its results."""
    if any(r.alias_info for r in func._schema.returns):
        return []
    changed = [x for a, x in zip(func._schema.arguments, args, strict=False) if a.alias_info and a.alias_info.is_write]
    return torch.utils._pytree.tree_leaves(changed)


def naive(params: list[Tensor]) -> Tensor:
    return sum((L1 * x.abs().sum() + L2 * x.square().sum() for x in params), torch.zeros(()))


def torch_counts(leaves: int = 8, size: int = 1000) -> dict[str, dict[str, int]]:
    """Of value and gradient, into gradients that are there."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        mesh = init_device_mesh("cpu", (1,))
        params = [DTensor.from_local(torch.randn(size), mesh, [Shard(0)]).requires_grad_() for _ in range(leaves)]
        found = {}
        for name, f in (
            ("naive", lambda: naive([p.to_local() for p in params]).backward()),
            ("ours", lambda: add_grad_(params, L1, L2)),
        ):
            f()  # what is made once for a list, and the gradients
            with Operations(size) as counted:
                f()
            found[name] = {"leaves": leaves, "all": counted.all, "large": counted.large, "passes": counted.passes}
            assert counted.collectives == (name == "ours")
        dist.destroy_process_group()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=list(DEVICES))
    devices = parser.parse_args().devices
    print(json.dumps({"jax": jax_counts(devices), "torch": torch_counts()}))


if __name__ == "__main__":
    main()
