"""What test_mock_driver.py runs of the driver's ways, each in a process of its own: what it refuses, where and when the
kernels are loaded, and what becomes of its errors."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import threading
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fused_penalty as fp
import fused_penalty.jax as fj
from fused_penalty._core import backends
from fused_penalty._core.operations import Op
from fused_penalty._core.plan import BOTH, GPU_CHUNK, Plan
from tests.emulation.mocked import L1, L2, OUT_OF_MEMORY, XLA_ERRORS, Mock


class Launch:
    """A launch through `_cuda.launch` on many small leaves of ones, which writes nothing."""

    def __init__(self, mock: Mock, leaves: int, op: Op = Op.SUMS) -> None:
        self.mock, self.op, self.leaves = mock, op, leaves
        self.plan = Plan((9,) * leaves, (2,) * leaves, (0,) * leaves, (1,) * leaves, (BOTH,) * leaves, GPU_CHUNK)
        self.x, self.table = np.ones(9, np.float32), self.plan.table
        self.addresses = [self.x.ctypes.data] * leaves
        size = mock.cuda.scratch_bytes(op, len(self.table), leaves)
        self.scratch, self.totals = np.zeros(size, np.uint8), np.zeros((1, len(op.columns)))

    def __call__(self, device: int = 0, stream: int = 0) -> None:
        self.totals[:] = -1
        self.mock.cuda.launch(
            self.op, False, self.table.ctypes.data, len(self.table), self.addresses, self.leaves, 0,
            self.scratch.ctypes.data, self.totals.ctypes.data, 1, device, stream,
        )  # fmt: skip

    def succeeds(self, device: int = 0) -> None:
        self(device)
        self.check()

    def check(self) -> None:
        assert (self.totals[0, :2] == 9 * self.leaves).all(), self.totals

    def fails(self, where: str, error: type[Exception] = RuntimeError, device: int = 0, stream: int = 0) -> None:
        with pytest.raises(error, match=where):
            self(device, stream)


def errors(mock: Mock) -> None:
    """Each function of the driver fails once: the call that met it raises, with the driver's words, and the next one is
    good. The GIL is free meanwhile."""
    mock.driver.mock_set_driver(12010, 16, 75)
    for number, function in enumerate(LAUNCHING):
        launch = Launch(mock, 1, Op.STATS if function in READING else Op.SUMS)
        mock.driver.mock_set_context(-1)  # and of this device nothing is known yet
        mock.fail(function)
        launch.fails(rf"^{function}.*: invalid argument \(CUDA_ERROR_INVALID_VALUE\)$", device=number)
        if function not in READING:
            launch.succeeds(number)
            launch.succeeds(number)
    many = Launch(mock, 4081)
    mock.fail("cuLaunchKernel")
    many.fails("cuLaunchKernel of fused_penalty_addresses")
    mock.fail("cuLaunchKernel", after=2)
    many.fails("cuLaunchKernel of fused_penalty_Sums_many")
    many.succeeds()
    assert mock.count("calls that held the GIL") == 0, mock.count("calls that held the GIL")

    x = jnp.ones(100)
    penalty = jax.jit(lambda x: fj.penalty(x, L1, L2, backend="mock"))
    np.testing.assert_allclose(penalty(x), 30, rtol=1e-6)
    mock.fail("cuMemsetD32Async")
    with pytest.raises(XLA_ERRORS, match=r"INTERNAL.*cuMemsetD32Async of the ticket: invalid argument"):
        jax.block_until_ready(penalty(x))
    np.testing.assert_allclose(penalty(x), 30, rtol=1e-6)
    mock.check_memory()


READING = ("cuLibraryLoadData", "cuLibraryGetKernel")  # an image, once for all devices
LAUNCHING = (
    *READING, "cuCtxGetCurrent", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuStreamIsCapturing",
    "cuCtxGetDevice", "cuDeviceGetAttribute", "cuKernelGetFunction", "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuMemsetD32Async", "cuLaunchKernel",
)  # fmt: skip


def memory(mock: Mock) -> None:
    """Out of memory, while an image is loaded or at a launch."""
    launch, x = Launch(mock, 1), jnp.ones(100)
    for function in ("cuLibraryLoadData", "cuKernelGetFunction", "cuLaunchKernel"):
        mock.fail(function, error=OUT_OF_MEMORY)
        launch.fails(rf"^{function}.*out of memory \(CUDA_ERROR_OUT_OF_MEMORY\)", MemoryError)
    launch.succeeds()
    mock.fail("cuLaunchKernel", error=OUT_OF_MEMORY)
    with pytest.raises(XLA_ERRORS, match=r"RESOURCE_EXHAUSTED.*CUDA_ERROR_OUT_OF_MEMORY"):
        jax.block_until_ready(jax.jit(lambda x: fj.penalty(x, L1, L2, backend="mock"))(x))


def loading(mock: Mock) -> None:
    """A kernel is loaded once on each device, in whatever thread, and never inside a capture; an image is read once."""
    launch = Launch(mock, 1)
    for device in (0, 1, 0, 1):
        mock.driver.mock_set_context(-1)  # the device's own is found
        launch.succeeds(device)
        assert mock.driver.mock_device() == device
    assert (mock.count("cuLibraryLoadData"), mock.count("loads")) == (1, 2)
    other = threading.Thread(target=launch.succeeds)  # which has no context yet
    other.start()
    other.join()
    assert mock.count("loads") == 2

    mock.driver.mock_set_context(0)
    statistics = Launch(mock, 1, Op.STATS)
    stream = mock.driver.mock_new_captured_stream()
    statistics.fails("fused_penalty_Stats_few is not loaded yet.*call once before", stream=stream)
    launch(0, stream)
    mock.driver.mock_end_capture(ctypes.c_void_p(stream), 0)
    assert mock.count("loads") == 2
    statistics.succeeds()
    assert mock.count("loads") == 3
    stream = mock.driver.mock_new_captured_stream()
    statistics(0, stream)
    assert (statistics.totals == -1).all()
    mock.driver.mock_end_capture(ctypes.c_void_p(stream), 2)
    statistics.check()

    mock.command_buffers(1)  # XLA's first call of a program is recorded, and what it launches was loaded before that
    held = mock.count("loads")
    for leaves in (3, 600):
        tree = [jnp.ones(9)] * leaves
        for verb in (lambda p: fj.prox(p, L1, L2, step=0.1, backend="mock"), lambda p: fj.stats(p, backend="mock")[:5]):
            mock.command_buffers(1)
            jax.block_until_ready(jax.jit(verb)(tree))
    assert mock.count("loads") == held + 3  # `stats` of few leaves was there


def row(name: str) -> tuple[bool, str]:
    """Whether a backend of torch is available, and why not."""
    return next((ok, why) for n, framework, _, ok, why in fp.backends().rows if (n, framework) == (name, "torch"))


def presence(mock: Mock, version: int, devices: int, capability: int, why: str, unfit: bool) -> None:
    """What is said of a machine; where its device cannot run the kernels, JAX compiles the reference for it."""
    mock.driver.mock_set_driver(version, devices, capability)
    ok, reason = row("cuda")
    assert ok == (why == "")
    assert why in reason, reason
    compiled = jax.jit(lambda x: fj.penalty(x, L1)).trace(jnp.ones(3)).lower(lowering_platforms=("cuda",)).as_text()
    assert ("fused_penalty" in compiled) != unfit
    assert backends.choose("torch", None, "cuda").name == ("cuda" if ok else "reference")
    if unfit:
        Launch(mock, 1).fails(re.escape(why))


def corrupt(mock: Mock, version: str, why: str) -> None:
    """An image that the driver does not take, in a copy of the module."""
    sound = mock.cuda.__file__
    assert sound is not None
    path = mock.folder / "corrupt.so"
    path.write_bytes(Path(sound).read_bytes().replace(b".version 8.1\n", version.encode()))
    # Under a name of its own: of a module that is loaded under the same name, pybind11 would give that one.
    spec = importlib.util.spec_from_file_location("corrupt._cuda", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with patch.object(mock, "cuda", module):
        Launch(mock, 1).fails(rf"^cuLibraryLoadData of the PTX of fused_penalty_Sums_few: .*{why}")
    Launch(mock, 1).succeeds()
