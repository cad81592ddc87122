"""Thread creation and allocation that fail: the call is right, or ends in an exception, and never crashes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fresh import run_fresh

pytest.importorskip("torch", reason="the native launcher is driven through torch tensors here")
pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)

COMPILER = shutil.which(os.environ.get("CXX", "g++"))
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or COMPILER is None, reason="needs LD_PRELOAD and a C++ compiler"
)

# Large enough for helpers, and filled by NumPy: OpenMP, which torch would start, aborts where it gets no thread.
START = """
import ctypes, os
import numpy as np
import torch
from fused_penalty.torch import prox_, sums

failing = ctypes.CDLL(os.environ["LD_PRELOAD"])
base = np.linspace(-1, 1, 5_000_011, dtype=np.float32)
small = torch.from_numpy(base[:70_000].copy())

def call():
    xs = [torch.from_numpy(base.copy()), small]
    found = sums(xs, backend="cpu")
    value = prox_(xs[:1], 0.25, 0.5, backend="cpu")
    return [t.numpy().tobytes() for t in (found.abs, found.square, value, xs[0])]
"""


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which creations and allocations can be made to fail."""
    source = Path(__file__).parent / "failing.cc"
    library = tmp_path_factory.mktemp("failing") / "libfailing.so"
    assert COMPILER is not None
    command = [COMPILER, "-std=c++20", "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {"LD_PRELOAD": str(library)}


def test_thread_creation_that_fails(preload: dict[str, str]) -> None:
    """The bits of one thread, and prox_ complete, whichever creations fail. The pool keeps its threads, so each child
    begins with a new one; and it has no more than processors, so tests/kernels/threads_test.cc goes further."""
    code = """
import warnings
warnings.simplefilter("ignore")  # Python's own, about forks of processes with threads
torch.set_num_threads(1)
expected = call()
for every in (1, 2, 3, 5):
    child = os.fork()
    if child == 0:
        failing.fail_every_thread(every)
        right = True
        for threads in (2, 4, 8, 16):
            torch.set_num_threads(threads)
            right &= call() == expected
        os._exit(0 if right and (failing.failed_threads() > 0 or every > 1) else 1)
    assert os.waitpid(child, 0)[1] == 0, every
print("right")
"""
    assert run_fresh(START + code, preload) == "right"


def test_allocation_that_fails(preload: dict[str, str]) -> None:
    """Each allocation of a call in turn: MemoryError with the leaf untouched, or the right result."""
    code = """
from fused_penalty import _cpu
from fused_penalty._core.operations import Op
from fused_penalty._core.plan import BOTH, plan_of_layout

torch.set_num_threads(4)
x, out = torch.from_numpy(base), torch.from_numpy(np.full_like(base, 7))
coefficients = torch.tensor([[0.25, 0.5]], dtype=torch.float64)
total = torch.zeros(1, 2, dtype=torch.float64)
read, outs = _cpu.Tensors([x]), _cpu.Tensors([out])
table = plan_of_layout(read.layout, BOTH).table

def launch():
    _cpu.launch(Op.GRADIENT, table, read, None, outs, coefficients, total, 4)

launch()
expected, refused, number = (total.numpy().tobytes(), out.numpy().tobytes()), 0, 0
while True:
    number += 1
    total.zero_()
    out.numpy()[:] = 7
    failing.fail_allocation(number)
    try:
        launch()
        raised = False
    except MemoryError:
        raised = True
    failed = failing.allocation_failed()
    failing.fail_allocation(0)
    if raised:
        refused += 1
        assert not total.any() and (out.numpy() == 7).all()
    else:
        assert (total.numpy().tobytes(), out.numpy().tobytes()) == expected
    if not failed:
        break
assert refused > 2, refused
print("right")
"""
    assert run_fresh(START + code, preload) == "right"
