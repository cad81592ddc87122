"""Everything that needs a GPU, in one command (`make gpu-check`): correctness, launches, capture, sanitizer, speed.

Writes benchmarks/results/gpu-report.json and .md. Without a GPU, the steps that need one say so and the rest runs:
the emulated kernels, and the measurement itself on the CPU with small shapes, which shows that it works but measures
nothing of a GPU.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fused_penalty as fp
from benchmarks.models import trees
from fused_penalty.torch import add_grad_, attach, penalty, penalty_and_grad, sums

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
L1, L2 = 1e-5, 1e-4
NEEDS_GPU = "skipped: no GPU here"
# Those of torch that can run kernels here.
BACKENDS = [r[0] for r in fp.backends().rows if r[1] == "torch" and r[0] in ("cuda", "triton") and r[3]]
OURS = [(None, ""), *((name, f", {name}") for name in BACKENDS)]  # by default, and by name
Report = dict[str, Any]


def leaves(name: str) -> list[torch.Tensor]:
    shapes = trees.MODELS[name] if GPU else {k: tuple(min(d, 64) for d in s) for k, s in trees.MODELS[name].items()}
    return [torch.randn(s, device=DEVICE) * 0.02 for s in shapes.values()]


def suite() -> Report:
    """The whole test suite; with a GPU the rows `cuda` of the table of backends no longer skip."""
    target = ["tests"] if GPU else ["tests/emulation"]
    env = {**os.environ, "JAX_PLATFORMS": "cuda,cpu" if GPU else "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *target], cwd=ROOT, env=env, capture_output=True, text=True
    )
    return {"passed": done.returncode == 0, "summary": done.stdout.strip().splitlines()[-1]}


def launches() -> Report | str:
    """Kernels that the profiler sees for one call, by verb."""
    if not GPU:
        return NEEDS_GPU
    found = {}
    for backend, model in itertools.product(BACKENDS, ("gpt2", "many")):
        xs = leaves(model)
        for name, call in (
            ("sums", lambda xs=xs, b=backend: sums(xs, backend=b)),
            ("penalty_and_grad", lambda xs=xs, b=backend: penalty_and_grad(xs[:1000], L1, L2, backend=b)),
        ):
            call()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                call()
                torch.cuda.synchronize()
            events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
            fused = sum(e.name.startswith(("fused_penalty_", "penalty_kernel")) for e in events)  # CUDA's, Triton's
            found[f"{backend} {model} {name}"] = {"fused kernels": fused, "all kernels, copies and fills": len(events)}
    return found


def capture() -> Report | str:
    """A captured graph replays with new values in the same memory."""
    if not GPU:
        return NEEDS_GPU
    found = {}
    for backend in BACKENDS:
        xs = leaves("resnet50")
        for x in xs:
            x.grad = torch.zeros_like(x)
        add_grad_(xs, L1, L2, backend=backend)  # the warm-up makes the tables
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = add_grad_(xs, L1, L2, backend=backend)
        for x in xs:
            x.mul_(2)
            x.grad.zero_()
        for _ in range(3):
            graph.replay()
        torch.cuda.synchronize()
        expected, gradients = penalty_and_grad(xs, L1, L2, backend="reference")
        found[backend] = bool(torch.isclose(value, expected)) and all(
            torch.allclose(x.grad, 3 * g, rtol=1e-5) for x, g in zip(xs, gradients, strict=True)
        )
    return found


def attached_step(mode: str, backend: str) -> tuple[list[torch.nn.Parameter], Callable[[], Any]]:
    """Parameters in two groups of different strengths and rates, and a step from the same gradients each time."""
    torch.manual_seed(0)
    xs = [torch.nn.Parameter(x) for x in leaves("resnet50")]
    given = [torch.randn_like(x) for x in xs]
    for x in xs:
        x.grad = torch.zeros_like(x)
    groups = [{"params": xs[::2], "lr": 1e-3, "l1": 0.0}, {"params": xs[1::2]}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, capturable=True)
    attach(optimizer, 0.1, torch.tensor(0.2, device=DEVICE), mode=mode, backend=backend)

    def step() -> None:
        torch._foreach_copy_([x.grad for x in xs], given)
        optimizer.step()

    return xs, step


def attach_in_a_graph() -> Report | str:
    """Replays of a captured optimizer step with `attach` are the steps that are made without a graph."""
    if not GPU:
        return NEEDS_GPU
    found = {}
    for backend, mode in itertools.product(BACKENDS, ("grad", "prox")):
        (xs, captured), (ys, step) = attached_step(mode, backend), attached_step(mode, backend)
        for _ in range(2):  # the warm-up makes the optimizer's state, and what the penalty keeps on the device
            captured()
            step()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured()
        for _ in range(3):
            graph.replay()
            step()
        torch.cuda.synchronize()
        found[f"{backend} {mode}"] = all(torch.allclose(x, y, rtol=1e-5) for x, y in zip(xs, ys, strict=True))
    return found


def jax_steps() -> Report | str:
    """Donated steps, replayed out of XLA's command buffer, with fresh arrays in between; neither may show it."""
    if not GPU:
        return NEEDS_GPU
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch holds memory of the same GPU
    import jax

    from fused_penalty.jax import penalty as penalty_of

    def step(p: list[Any], backend: str) -> tuple[list[Any], Any]:
        value, g = jax.value_and_grad(lambda q: penalty_of(q, L1, L2, backend=backend))(p)
        return [w - 0.1 * d for w, d in zip(p, g, strict=True)], value

    donated = jax.jit(step, donate_argnums=0, static_argnums=1)
    start = [x.cpu().numpy() for x in leaves("gpt2")]
    ours, expected = ([jax.numpy.array(x) for x in start] for _ in range(2))
    others, values = [], []
    for k in range(20):
        ours, value = donated(ours, "cuda")
        expected, value_expected = donated(expected, "reference")
        others.append(jax.numpy.full(10_000 + k, k, jax.numpy.float32))
        values.append((value, value_expected))
    found = {"on a GPU": {d.platform for d in ours[0].devices()} == {"gpu"}}
    found["values"] = all(bool(jax.numpy.isclose(a, b, rtol=1e-5)) for a, b in values)
    pairs = zip(ours, expected, strict=True)  # a weight that meets zero may turn a step later
    found["parameters"] = all(bool(jax.numpy.allclose(a, b, rtol=1e-5, atol=1e-5)) for a, b in pairs)
    return found | {"other arrays": all(bool((x == k).all()) for k, x in enumerate(others))}


def sanitizer() -> Report | str:
    """compute-sanitizer over a small call, memcheck and racecheck."""
    tool = shutil.which("compute-sanitizer")
    if not GPU:
        return NEEDS_GPU
    if tool is None:
        return "skipped: compute-sanitizer is not installed"
    code = (
        "import sys, torch; from fused_penalty.torch import penalty_and_grad as f\n"
        "xs = [torch.randn(n, device='cuda', dtype=d) for n in (1, 33, 70001) for d in "
        "(torch.float16, torch.bfloat16, torch.float32, torch.float64)]\n"
        "print(float(f(xs, 0.1, 0.2, backend=sys.argv[1])[0]))"
    )
    found = {}
    for backend, check in itertools.product(BACKENDS, ("memcheck", "racecheck")):
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", code, backend]
        found[f"{backend} {check}"] = subprocess.run(command, capture_output=True, text=True).returncode == 0
    return found


def median_ms(call: Callable[[], Any], rounds: int = 30) -> float:
    for _ in range(3):
        call()
    times = []
    for _ in range(rounds):
        if GPU:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if GPU:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def naive(xs: list[torch.Tensor]) -> torch.Tensor:
    return sum(L1 * x.abs().sum() + L2 * x.square().sum() for x in xs)


def contenders(xs: list[torch.Tensor]) -> dict[str, Callable[[], Any]]:
    flat = torch.cat([x.ravel() for x in xs])
    target = torch.empty_like(flat)
    found: dict[str, Callable[[], Any]] = {
        "copy of the same bytes (read + write)": lambda: target.copy_(flat),
        **{f"ours{mark}": lambda b=b: penalty(xs, L1, L2, backend=b) for b, mark in OURS},
        **{f"ours penalty_and_grad{mark}": lambda b=b: penalty_and_grad(xs, L1, L2, backend=b) for b, mark in OURS},
        "naive eager": lambda: naive(xs),
        "_foreach_norm, twice": lambda: (torch._foreach_norm(xs, 1), torch._foreach_norm(xs, 2)),
    }
    if len(xs) < 500 and GPU:
        found["torch.compile naive"] = torch.compile(lambda: naive(xs))
    try:
        import amp_C
        from apex.multi_tensor_apply import multi_tensor_applier

        flag = torch.zeros(1, dtype=torch.int, device=DEVICE)
        found["apex l2norm (L2 only)"] = lambda: multi_tensor_applier(amp_C.multi_tensor_l2norm, flag, [xs], False)
    except ImportError:
        pass  # apex is compared where it is installed
    return found


def speed() -> Report:
    """Medians; the copy's bytes per second are the limit."""
    found = {}
    for model in ("gpt2", "resnet50", "many"):
        xs = leaves(model)
        size = sum(x.numel() * x.element_size() for x in xs)
        rows = {name: median_ms(call) for name, call in contenders(xs).items()}
        found[model] = {name: {"ms": round(ms, 4), "GB/s read": round(size / ms / 1e6, 1)} for name, ms in rows.items()}
    return found


def jax_speed() -> Report | str:
    """Ours and the naive sum, jitted: value, and value with gradient."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch holds memory of the same GPU
    import jax

    from benchmarks.contenders import jax as contend_jax

    found = {}
    for model in ("gpt2", "resnet50"):
        params = {str(i): jax.numpy.asarray(x.cpu().numpy()) for i, x in enumerate(leaves(model))}
        calls = {"ours": contend_jax.penalty, "naive": contend_jax.penalty_per_leaf}
        found[model] = {"device": str(next(iter(params["0"].devices())))}
        for name, f in calls.items():
            for label, jitted in ((name, jax.jit(f)), (f"{name} value_and_grad", jax.jit(jax.value_and_grad(f)))):
                ms = median_ms(lambda jitted=jitted, params=params: jax.block_until_ready(jitted(params)))
                found[model][label] = {"ms": round(ms, 4)}
    return found


STEPS: dict[str, Callable[[], Report | str]] = {
    "suite": suite, "launches": launches, "graph capture": capture, "attach in a graph": attach_in_a_graph,
    "steps, JAX": jax_steps, "compute-sanitizer": sanitizer, "speed": speed, "speed, JAX": jax_speed,
}  # fmt: skip


def machine() -> Report:
    name = torch.cuda.get_device_name() if GPU else f"no GPU ({platform.machine()}, {os.cpu_count()} cores)"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def markdown(report: Report) -> str:
    lines = [f"# GPU check: {report['machine']['device']}", ""]
    if not GPU:
        lines += ["Not measured on a GPU: the speeds below are of a CPU with small shapes.", ""]
    for name, found in report.items():
        lines += [f"## {name}", "", "```", found if isinstance(found, str) else json.dumps(found, indent=1), "```", ""]
    return "\n".join(lines)


def main() -> None:
    report: Report = {"machine": machine(), "backends": str(fp.backends())}
    for name, step in STEPS.items():
        print(f"{name} ...", flush=True)
        report[name] = step()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu-report.json").write_text(json.dumps(report, indent=1))
    (RESULTS / "gpu-report.md").write_text(markdown(report))
    print(markdown(report))
    names = ("suite", "graph capture", "attach in a graph", "steps, JAX", "compute-sanitizer")
    checks = [report[name] for name in names]
    bad = [c for c in checks if isinstance(c, dict) and not all(v for v in c.values() if isinstance(v, bool))]
    many = [c for c in (report["launches"] if GPU else {}).values() if c["fused kernels"] != 1]
    sys.exit(1 if bad or many else 0)


if __name__ == "__main__":
    main()
