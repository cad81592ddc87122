"""What test_mock_runtime.py runs, each in a process of its own: the CUDA launcher and handlers on the mock runtime.

XLA's CPU client is the caller. The row `mock` of the backends is the CUDA row of JAX for the platform `cpu`."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import sys
from collections.abc import Callable
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
XLA_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # which of them is XLA's choice
Verb = Callable[[Any, Any, str], Any]  # parameters, anchors, backend
VERBS: dict[str, Verb] = {
    "penalty": lambda p, a, b: fj.penalty(p, L1, L2, anchor=a, backend=b),
    "grad": lambda p, a, b: jax.grad(lambda q: fj.penalty(q, L1, L2, anchor=a, backend=b))(p),
    "penalty_and_grad": lambda p, a, b: fj.penalty_and_grad(p, L1, L2, anchor=a, backend=b),
    "prox": lambda p, a, b: fj.prox(p, L1, L2, anchor=a, step=0.3, backend=b),
    "stats": lambda p, a, b: fj.stats(p, anchor=a, backend=b)[:5],
}


class Mock:
    """The module, and what its runtime is told and asked."""

    def __init__(self, path: str) -> None:
        # Not its own name: of a module that is loaded under the same name, pybind11 would give that one.
        spec = importlib.util.spec_from_file_location("mock._cuda", path)
        assert spec is not None
        assert spec.loader is not None
        self.cuda = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.cuda)
        self.library = ctypes.CDLL(path)
        self.library.mock_count.restype = ctypes.c_longlong
        assert self.cuda.__file__ == path
        sys.modules["fused_penalty._cuda"] = self.cuda
        backends.BACKENDS = (backends.Backend("mock", "jax", ("cpu",), self._row, steps=True), *backends.BACKENDS)

    def _row(self) -> Any:
        """The launcher as the row `cuda` makes it; its targets get names of their own beside the CPU's."""

        def register(handlers: Any, platform: str) -> None:
            for target in handlers:
                handler = jax.ffi.pycapsule(getattr(self.library, f"mock_{target}"))
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
        return self.library.mock_count(what.encode())

    def command_buffers(self, replays: int) -> None:
        """From now on a program: its first call is recorded, and each call is so many replays; 0: none is recorded."""
        self.library.mock_command_buffers(replays)

    def fail_next(self, function: str) -> None:
        self.library.mock_fail_next(function.encode())

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
    launches = mock.count("cudaLaunchKernel")
    refused(lambda: call(size - 1, np.uint8), f"scratch must have {size} bytes, not {size - 1}")
    refused(lambda: call(size, np.int8), "")
    mock.library.mock_skew_results(8)
    refused(lambda: call(size, np.uint8), "multiple of 16")
    mock.library.mock_skew_results(0)
    assert mock.count("cudaLaunchKernel") == launches
    np.testing.assert_array_equal(call(size, np.uint8), [[100, 100]])
    mock.check_memory()


def refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(XLA_ERRORS, match=f"INVALID_ARGUMENT.*{words}"):
        jax.block_until_ready(call())


RUNTIME = (
    "cudaGetDevice", "cudaDeviceGetAttribute", "cudaOccupancyMaxActiveBlocksPerMultiprocessor", "cudaMemsetAsync",
    "cudaLaunchKernel",
)  # fmt: skip


def errors(mock: Mock) -> None:
    """An error is raised once, by the call that met it; the next launch is good. The GIL is free meanwhile."""
    launch = Launch(mock, 1)
    for number, function in enumerate(RUNTIME):
        mock.library.mock_use_device(number)  # of which nothing is known yet
        mock.fail_next(function)
        launch.fails(function.replace("cudaLaunchKernel", "the launch of the kernel"))
        launch.succeeds()
        launch.succeeds()
    many = Launch(mock, 4081)
    mock.fail_next("cudaLaunchKernel")
    many.fails("writes addresses")
    many.succeeds()
    for op in (Op.GRADIENT, Op.STATS):  # each kernel asks how many of its blocks fit
        asked = mock.count(RUNTIME[2])
        Launch(mock, 1, op).succeeds()
        Launch(mock, 1, op).succeeds()
        assert mock.count(RUNTIME[2]) == asked + 1, op
    mock.library.mock_set_last_error(1)  # of somebody else, who will ask for it
    launch.succeeds()
    assert mock.library.mock_last_error() == 1
    mock.library.mock_set_last_error(0)
    assert mock.count("calls that held the GIL") == 0, mock.count("calls that held the GIL")

    x = jnp.ones(100)
    penalty = jax.jit(lambda x: fj.penalty(x, L1, L2, backend="mock"))
    np.testing.assert_allclose(penalty(x), 30, rtol=1e-6)
    mock.fail_next("cudaMemsetAsync")
    with pytest.raises(XLA_ERRORS, match="cudaMemsetAsync of the ticket: a mock error"):
        jax.block_until_ready(penalty(x))
    np.testing.assert_allclose(penalty(x), 30, rtol=1e-6)
    mock.check_memory()


class Launch:
    """A launch through `_cuda.launch` on many small leaves of ones."""

    def __init__(self, mock: Mock, leaves: int, op: Op = Op.SUMS) -> None:
        self.mock, self.op, self.leaves = mock, op, leaves
        self.plan = Plan((9,) * leaves, (2,) * leaves, (0,) * leaves, (1,) * leaves, (BOTH,) * leaves, GPU_CHUNK)
        self.x, self.out = np.ones(9, np.float32), np.zeros(9, np.float32)
        self.addresses = [self.x.ctypes.data] * leaves
        if op is Op.GRADIENT:
            self.addresses += [self.out.ctypes.data] * leaves
        self.table, self.coefficients = self.plan.table, np.ones((1, 2))
        size = mock.cuda.scratch_bytes(op, len(self.table), len(self.addresses))
        self.scratch, self.totals = np.zeros(size, np.uint8), np.zeros((1, len(op.columns)))

    def __call__(self) -> None:
        self.totals[:] = -1
        coefficients = self.coefficients.ctypes.data if self.op is Op.GRADIENT else 0
        self.mock.cuda.launch(
            self.op, False, self.table.ctypes.data, len(self.table), self.addresses, self.leaves, coefficients,
            self.scratch.ctypes.data, self.totals.ctypes.data, 1, 0,
        )  # fmt: skip

    def succeeds(self) -> None:
        self()
        assert (self.totals[0, :2] == 9 * self.leaves).all(), self.totals

    def fails(self, where: str) -> None:
        with pytest.raises(RuntimeError, match=where):
            self()


def run(path: str, scenario: Callable[..., None], *args: Any) -> None:
    scenario(Mock(path), *args)
    print("right")
