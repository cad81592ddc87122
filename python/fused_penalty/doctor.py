"""`fused-penalty doctor`: versions, devices and backends of this machine, and what to do about what does not run."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._core.backends import BACKENDS, ENVIRONMENT, INTERPRET, Backend, backends
from ._core.operations import Op

PACKAGES = (
    "numpy", "jax", "jaxlib", "torch", "triton", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "keras",
    "safetensors",
)  # fmt: skip
VARIABLES = (ENVIRONMENT, INTERPRET, "CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "OMP_NUM_THREADS")
DRIVER = Path("/proc/driver/nvidia/version")
NOBODY = "install one: pip install 'fused-penalty[torch]' or 'fused-penalty[jax]'"


def doctor() -> int:
    """Print the findings; returns 1 if something is wrong, and not merely absent."""
    wrong: list[str] = []
    advice: list[str] = []
    print("\n".join(_versions()))
    try:
        print(f"\n{backends()}\n")
    except Exception as e:  # a native module that is older or newer than the Python code
        print(f"wrong: the backends cannot be listed ({type(e).__name__}: {e}); install the package again")
        return 1
    if all(importlib.util.find_spec(name) is None for name in ("jax", "torch")):
        advice.append(f"there is neither JAX nor PyTorch; {NOBODY}")
    for row in BACKENDS:
        if row.reason() is None and importlib.util.find_spec(row.framework) is not None:
            wrong += _try(row)
    wrong += _tables() + _asked_for()
    advice += _slower_than_need_be()
    for line in wrong:
        print(f"wrong: {line}")
    for line in advice:
        print(f"to do: {line}")
    if not wrong and not advice:
        print("All that can run here runs.")
    return int(bool(wrong))


def _versions() -> Iterator[str]:
    yield f"fused-penalty {_version('fused-penalty')}"
    libc = " ".join(platform.libc_ver())
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}{', ' + libc if libc else ''}"
    yield ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    if absent := [name for name in ("jax", "torch") if _version(name) is None]:
        yield f"not installed: {', '.join(absent)}"
    yield f"CPU: {os.cpu_count()} cores, {_instructions()}"
    yield f"GPU: {_devices()}; driver: {_driver()}"
    if values := [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]:
        yield f"environment: {', '.join(values)}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _instructions() -> str:
    cpu = _native()
    return "no native module" if cpu is None else f"kernels for {cpu.best_isa().name}"


def _native() -> Any | None:
    try:
        return importlib.import_module(f"{__package__}._cpu")
    except ImportError:
        return None


def _driver() -> str:
    """The version of NVIDIA's driver, from the kernel: no library has to be loaded for it."""
    try:
        text = DRIVER.read_text()
    except OSError:
        return "none of NVIDIA's"
    found = re.search(r"\s(\d+(?:\.\d+)+)\s", text)
    return f"NVIDIA {found[1] if found else text.splitlines()[0]}"


def _devices() -> str:
    """The GPUs that torch sees, or else JAX."""
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        built = next((f"{n} {v}" for n in ("cuda", "hip", "xpu") if (v := getattr(torch.version, n, None))), "no GPU")
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{', '.join(names) or 'none'} (torch is built for {built})"
    if importlib.util.find_spec("jax") is not None:
        jax = importlib.import_module("jax")
        return ", ".join(d.device_kind for d in jax.devices() if d.platform != "cpu") or "none"
    return "not looked for"


def _try(row: Backend) -> list[str]:
    """Compute a penalty of 1·(1 + 2) + 1·(1 + 4) with the backend, if its framework has a device for it."""
    run = {"jax": _with_jax, "torch": _with_torch}[row.framework]
    try:
        found = run(row)
    except Exception as e:  # whatever it is, it is what the user has to know
        return [f"{row.name} for {row.framework} failed: {type(e).__name__}: {e}"]
    return [] if found in (None, 8) else [f"{row.name} for {row.framework} gave {found} instead of 8"]


def _with_torch(row: Backend) -> float | None:
    import torch

    from .torch import penalty

    here = [kind for kind in ("cuda", "xpu", "cpu") if kind == "cpu" or getattr(torch, kind).is_available()]
    device = next(filter(row.fits, reversed(here)), None)  # the reference, which fits all, on the CPU
    if device is None:
        return None
    return float(penalty([torch.tensor([1.0, -2.0], device=device)], 1.0, 1.0, backend=row.name))


def _with_jax(row: Backend) -> float | None:
    import jax
    import jax.numpy as jnp

    from .jax import penalty

    try:
        device = jax.devices("cuda" if row.devices == ("cuda",) else "cpu")[0]
    except RuntimeError:  # JAX has no such platform
        return None
    with jax.default_device(device):
        return float(penalty([jnp.array([1.0, -2.0])], 1.0, 1.0, backend=row.name))


def _tables() -> list[str]:
    """A native module that is older or newer than the Python code reads another layout."""
    cpu = _native()
    if cpu is None or len(cpu.operations()) == len(Op):
        return []
    return ["the native module was built from other sources than this Python code; install the package again"]


def _asked_for() -> list[str]:
    name = os.environ.get(ENVIRONMENT)
    rows = [row for row in BACKENDS if row.name == name]
    if not name or any(row.reason() is None for row in rows):
        return []
    reason = rows[0].reason() if rows else "there is none of this name"
    return [f"{ENVIRONMENT}={name} cannot run: {reason}; unset it, and the library chooses"]


def _slower_than_need_be() -> Iterator[str]:
    """What would run if something were installed or built."""
    for framework in ("jax", "torch"):
        rows = {row.name: row for row in BACKENDS if row.framework == framework}
        if importlib.util.find_spec(framework) is None:
            continue
        if (reason := rows["cpu"].reason()) is not None:
            yield f"{framework} on CPUs runs the slow reference: {reason}"
        gpu = {name: row.reason() for name, row in rows.items() if name in ("cuda", "triton")}
        if DRIVER.exists() and all(gpu.values()):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in gpu.items())
            yield f"{framework} on the GPU runs the slow reference: {reasons}"
