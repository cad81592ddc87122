"""Two processes, each with two devices of one mesh: `jax.distributed` over loopback, gloo between them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="jax is not installed")

import numpy as np

from tests.support import oracle

PROCESSES, DEADLINE = 2, 120.0
PROGRAM = """
import json, sys
import jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
port, processes, rank, axes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
jax.distributed.initialize(f"localhost:{port}", processes, rank, initialization_timeout=60)
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from fused_penalty.jax import penalty, penalty_and_grad, prox, sums
from benchmarks.scale.hlo import compiled_counts

mesh = jax.make_mesh((4,), ("x",), axis_types=(getattr(AxisType, axes),))
rng = np.random.default_rng(0)
tree = {"w": rng.standard_normal((8, 6), np.float32), "b": rng.standard_normal(5, np.float32)}
specs = {"w": P("x"), "b": P()}
put = lambda x, spec: jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda i: x[i])
params = {n: put(x, specs[n]) for n, x in tree.items()}
with jax.set_mesh(mesh):
    value, grads = jax.jit(jax.value_and_grad(lambda p: penalty(p, 0.1, 0.2)))(params)
    same, fused = penalty_and_grad(params, 0.1, 0.2)
    s, new = sums(params), prox(params, 0.1, 0.2)
    counts = compiled_counts(lambda p: penalty(p, 0.1, 0.2), params)
parts = lambda x: [(str(p.index), np.asarray(p.data).tolist()) for p in x.addressable_shards]
print(json.dumps({
    "devices": jax.device_count(), "counts": counts,
    "values": [float(value).hex(), float(same).hex()],
    "sums": [np.asarray(v).tolist() for v in (s.abs, s.square)],
    "grad": parts(grads["w"]), "fused": parts(fused["w"]), "new": parts(new["w"]),
}))
"""  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
def test_two_processes(axes: str) -> None:
    port = free_port()
    path = os.pathsep.join(sys.path)
    env = {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", PROGRAM, str(port), str(PROCESSES)]
    children = [
        subprocess.Popen(
            [*command, str(rank), axes], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(PROCESSES)
    ]
    try:
        outputs = [child.communicate(timeout=DEADLINE) for child in children]
    finally:  # none is left behind, whatever happens
        for child in children:
            child.kill()
            child.wait()
    for child, (_, errors) in zip(children, outputs, strict=True):
        assert child.returncode == 0, errors[-3000:]
    results = [json.loads(out.splitlines()[-1]) for out, _ in outputs]

    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((8, 6), np.float32), rng.standard_normal(5, np.float32)
    first, second = results
    assert first["values"] == second["values"]  # the same bits on every process
    assert first["sums"] == second["sums"]
    for value in first["values"]:
        np.testing.assert_allclose(float.fromhex(value), oracle.penalty([w, b], [0.1] * 2, [0.2] * 2), rtol=1e-6)
    for name, expected in (("grad", oracle.gradient(w, 0.1, 0.2)), ("fused", oracle.gradient(w, 0.1, 0.2))):
        found = np.concatenate([np.float32(part) for r in results for _, part in r[name]])
        np.testing.assert_allclose(found, expected, rtol=2.0**-22)
    new = np.concatenate([np.float32(part) for r in results for _, part in r["new"]])
    np.testing.assert_allclose(new, (w - np.clip(w, -0.1, 0.1)) / 1.4, rtol=2.0**-22)
    for r in results:
        assert r["devices"] == 4
        assert r["counts"] == {"launches": 1, "all_reduces": 1, "all_gathers": 0, "other_collectives": 0}
