"""What test_mock_driver.py runs, each in a process of its own: the CUDA launcher and handlers on the mock driver.

XLA's CPU client is the caller. The row `mock` of the backends is the CUDA row of JAX for the platform `cpu`."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fused_penalty.jax as fj
from fused_penalty._core import backends
from fused_penalty._core.operations import Op
from fused_penalty._core.plan import BOTH, GPU_CHUNK, Plan
from fused_penalty.jax.backends import ffi

TARGET, STEP_TARGET = "mock_fused_penalty", "mock_fused_penalty_step"
L1, L2 = 0.1, 0.2
INVALID_VALUE, OUT_OF_MEMORY = 1, 2  # errors of the driver
XLA_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # which of them is XLA's choice
Verb = Callable[[Any, Any, str], Any]  # parameters, anchors, backend
VERBS: dict[str, Verb] = {
    "penalty": lambda p, a, b: fj.penalty(p, L1, L2, anchor=a, backend=b),
    "grad": lambda p, a, b: jax.grad(lambda q: fj.penalty(q, L1, L2, anchor=a, backend=b))(p),
    "penalty_and_grad": lambda p, a, b: fj.penalty_and_grad(p, L1, L2, anchor=a, backend=b),
    "prox": lambda p, a, b: fj.prox(p, L1, L2, anchor=a, step=0.3, backend=b),
    "stats": lambda p, a, b: fj.stats(p, anchor=a, backend=b)[:5],
}


def pointer(capsule: Any) -> ctypes.c_void_p:
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_void_p(read(capsule, None))


class Mock:
    """The module of the package, and what its driver is told and asked."""

    def __init__(self, path: str) -> None:
        self.folder = Path(path).parent
        self.driver = ctypes.CDLL(path)  # whoever opens libcuda.so.1 from now on is given this one
        self.driver.mock_count.restype = ctypes.c_longlong
        self.driver.mock_new_captured_stream.restype = ctypes.c_void_p
        from fused_penalty import _cuda

        self.cuda = _cuda
        for number, stages in enumerate(_cuda.ffi_handlers().values()):
            self.driver.mock_use_handlers(number, pointer(stages["initialize"]), pointer(stages["execute"]))
        backends.BACKENDS = (backends.Backend("mock", "jax", ("cpu",), self._row, steps=True), *backends.BACKENDS)

    def _row(self) -> Any:
        """The launcher as the row `cuda` makes it; its targets get names of their own beside the CPU's."""

        def register(handlers: Any, platform: str) -> None:
            for target in handlers:
                handler = jax.ffi.pycapsule(getattr(self.driver, f"mock_{target}"))
                jax.ffi.register_ffi_target(f"mock_{target}", handler, "cpu")

        with patch.object(ffi, "register", register):
            made = backends._load_jax("cuda")()

        class Launcher(ffi.Launcher):
            def launch(self, *args: Any, **kw: Any) -> Any:
                with patch.object(ffi, "TARGET", TARGET):
                    return super().launch(*args, **kw)

            def step(self, *args: Any, **kw: Any) -> Any:
                with patch.object(ffi, "STEP_TARGET", STEP_TARGET):
                    return super().step(*args, **kw)

        return Launcher(**vars(made))

    def count(self, what: str) -> int:
        return self.driver.mock_count(what.encode())

    def command_buffers(self, replays: int) -> None:
        """From now on a program: its first call is recorded, and each call is so many replays; 0: none is recorded."""
        self.driver.mock_command_buffers(replays)

    def fail(self, function: str, *, after: int = 0, error: int = INVALID_VALUE) -> None:
        """After so many calls that do not, this function of the driver fails once."""
        self.driver.mock_fail(function.encode(), after, error)

    def check_memory(self) -> None:
        """Nobody else's memory has changed, and none was asked for that XLA does not plan."""
        assert self.count("bytes of others changed") == 0, self.count("bytes of others changed")
        assert self.count("allocations") == 0, self.count("allocations")


def tree(leaves: int, seed: int = 0) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    dtypes = (jnp.float32, jnp.float32, jnp.bfloat16, jnp.float16)
    return [jnp.asarray(rng.standard_normal(20 + i % 7), dtypes[i % 4]) for i in range(leaves)]


def close(found: Any, expected: Any) -> None:
    """float32 results are of the same sums; narrower ones may differ by a rounding."""
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        f, e = np.asarray(f), np.asarray(e)
        assert f.dtype == e.dtype
        tolerance = 1e-6 if f.dtype.itemsize > 2 else 8e-3
        np.testing.assert_allclose(f.astype(np.float64), e.astype(np.float64), rtol=tolerance, atol=1e-30)


def verbs(mock: Mock, leaves: int, names: list[str]) -> None:
    """Equal to the CPU's kernels, launched at once and out of a command buffer, which is replayed twice a call."""
    p, anchors = tree(leaves), tree(leaves, 1)
    for name, anchor in itertools.product(names, (None, anchors) if leaves < 200 else (None,)):
        verb = jax.jit(VERBS[name], static_argnums=2)
        expected = verb(p, anchor, "cpu")
        for replays in (0, 2):
            mock.command_buffers(replays)
            for params in (p, p) if replays else (p,):
                close(verb(params, anchor, "mock"), expected)
    mock.check_memory()
    programs = len(names) * (2 if leaves < 200 else 1)
    assert (mock.count("records"), mock.count("replays")) == (programs, 4 * programs)


def steps(mock: Mock) -> None:
    """Twenty donated steps of gradient descent, one recording; fresh arrays are allocated between them."""

    def step(p: Any, g: Any, backend: str) -> Any:
        value, extra = jax.value_and_grad(lambda q: fj.penalty(q, 1e-3, 1e-2, backend=backend))(p)
        return jax.tree.map(lambda w, d, e: w - 0.1 * (d + e), p, g, extra), value

    donated = jax.jit(step, donate_argnums=0, static_argnums=2)
    params, values, others = {b: tree(148) for b in ("mock", "cpu")}, {}, []
    mock.command_buffers(1)
    for k in range(20):
        g = tree(148, 2 + k)
        for b in params:
            params[b], values[b] = donated(params[b], g, b)
        others.append(jnp.full(10_000, k, jnp.float32))
        close(values["mock"], values["cpu"])
    close(params["mock"], params["cpu"])
    for k, other in enumerate(others):
        assert (np.asarray(other) == k).all()
    mock.check_memory()
    assert (mock.count("records"), mock.count("replays")) == (1, 20)


def refusals(mock: Mock) -> None:
    """Scratch that does not fit is refused before anything is launched."""
    backends.BACKENDS[0].load()
    x = jnp.ones(100)
    plan = Plan((100,), (2,), (0,), (1,), (BOTH,), GPU_CHUNK)
    size = mock.cuda.scratch_bytes(Op.SUMS, 1, 1)

    def call(size: int, dtype: Any) -> Any:
        shapes = [((1, 2), np.float32), ((), np.float32), ((size,), dtype)]
        results = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in shapes]
        return jax.ffi.ffi_call(TARGET, results)(plan.table, x, op=np.int32(Op.SUMS), anchored=False)[0]

    np.testing.assert_array_equal(call(size, np.uint8), [[100, 100]])
    launches = mock.count("cuLaunchKernel")
    refused(lambda: call(size - 1, np.uint8), f"scratch must have {size} bytes, not {size - 1}")
    refused(lambda: call(size, np.int8), "")
    mock.driver.mock_skew_results(8)
    refused(lambda: call(size, np.uint8), "multiple of 16")
    mock.driver.mock_skew_results(0)
    assert mock.count("cuLaunchKernel") == launches
    np.testing.assert_array_equal(call(size, np.uint8), [[100, 100]])
    mock.check_memory()


def refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(XLA_ERRORS, match=f"INVALID_ARGUMENT.*{words}"):
        jax.block_until_ready(call())


def run(path: str, scenario: Callable[..., None], *args: Any) -> None:
    scenario(Mock(path), *args)
    print("right")
