"""The Triton backend: the suite under Triton's interpreter, what it refuses, and its tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="Triton is not installed")
from torch import Tensor

import fused_penalty as fp
from fused_penalty._core import backends as _backends
from fused_penalty._core.dtypes import BITS
from fused_penalty._core.plan import plan_of_layout
from fused_penalty.torch import penalty
from fused_penalty.torch.backends.tables import Place, Tables
from tests.support import edges
from tests.support.fresh import run_fresh
from tests.support.paths import ROOT
from tests.triton import again

CPU = torch.device("cpu")
INTERPRETED = _backends.TRITON_DEVICES == ("cpu",)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is on already")
def test_the_suite_under_the_interpreter() -> None:
    """What again.py lists. In a process of its own: kernels are interpreted or not from the import of Triton on."""
    left_out = [f"--deselect={name}" for name in again.LEFT_OUT]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "triton", *left_out, *again.FILES]
    env = {**os.environ, _backends.INTERPRET: "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = int(done.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1])
    assert passed > 300


# How a test gets a backend of torch: from a fixture, or as a parameter.
GIVEN = re.compile(r"\bfrontend: |on_cpu\(\"torch\"\)|params\(\"torch\"\)")


def test_what_has_a_backend_runs_under_the_interpreter_or_has_a_reason_not_to() -> None:
    """So that a new file cannot be forgotten, nor a name that is left out be one that is gone."""
    known = {name.split("::")[0] for name in (*again.FILES, *again.LEFT_OUT)}
    files = {str(f.relative_to(ROOT)): f.read_text() for f in (ROOT / "tests").rglob("test_*.py")}
    assert {f for f, text in files.items() if GIVEN.search(text)} <= known
    for name in (*again.FILES, *again.LEFT_OUT):
        file, _, test = name.partition("::")
        assert f"def {test.split('[')[0]}" in files[file], name


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes CPU tensors")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_device() -> None:
    with pytest.raises(RuntimeError, match=r"'triton' is not available for torch: no device \(.*TRITON_INTERPRET=1"):
        penalty([torch.ones(2)], 0.1, backend="triton")
    row = next(r for r in fp.backends().rows if r[0] == "triton")
    assert row[2:4] == ("cuda, xpu", False)
    assert _backends.choose("torch", None, "cpu").name == "cpu"


def test_tensors_of_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    here = _backends.Backend("triton", "torch", ("cuda", "xpu"), lambda: object())
    monkeypatch.setattr(_backends, "BACKENDS", (here,))
    with pytest.raises(ValueError, match=r"backend: 'triton' runs on cuda, xpu, not on cpu\. Move the parameters"):
        penalty([torch.ones(2)], 0.1, backend="triton")


def test_an_amd_gpu_is_called_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the CUDA module may be built, too, but finds no device."""

    def row(name: str, missing: str | None) -> _backends.Backend:
        return _backends.Backend(name, "torch", ("cuda",), lambda: object(), lambda: missing)

    monkeypatch.setattr(_backends, "BACKENDS", (row("cuda", "no driver"), row("triton", None)))
    assert _backends.choose("torch", None, "cuda").name == "triton"


@pytest.mark.parametrize(("first", "then"), [("0", "1"), ("1", "0")])
def test_the_interpreter_has_to_be_set_before_the_first_use(first: str, then: str) -> None:
    code = f"""
    import os
    import fused_penalty as fp
    fp.backends
    os.environ["TRITON_INTERPRET"] = "{then}"
    print(next(r for r in fp.backends().rows if r[0] == "triton")[4])
    """
    found = run_fresh(code, {_backends.INTERPRET: first})
    assert "TRITON_INTERPRET was changed after the backends were looked up" in found


# The tables, without a kernel.


def words(*values: int) -> Any:
    return lambda: np.array(values, np.int64)


def found(tables: Tables, place: Place, key: str, *values: int) -> Tensor:
    return tables.find(place, key, words(*values))


def test_a_table_is_found_by_what_it_holds() -> None:
    tables = Tables(8)
    here = Place(CPU, 0, False)
    first = found(tables, here, "a", 1, 2)
    assert first.tolist() == [1, 2]
    assert found(tables, here, "a", 1, 2) is first
    assert found(tables, here, "b", 3).tolist() == [3]
    assert tables.uploads == 2


def test_every_device_and_stream_has_its_own() -> None:
    """Freed memory goes to later work of the same stream; another device cannot read it at all."""
    tables = Tables(8)
    places = [Place(torch.device("cpu", d), s, False) for d in (0, 1) for s in (0, 1)]
    assert len({id(found(tables, p, "a", 1)) for p in places}) == 4
    assert tables.uploads == 4


def test_old_tables_go() -> None:
    tables = Tables(2)
    here = Place(CPU, 0, False)
    for key in ("a", "b", "a", "c"):
        found(tables, here, key, ord(key))
    assert tables.uploads == 3
    found(tables, here, "a", 0)  # was used after b
    assert tables.uploads == 3
    found(tables, here, "b", 0)
    assert tables.uploads == 4


def test_in_a_capture_nothing_is_copied() -> None:
    tables = Tables(2)
    capture = Place(CPU, 7, True)
    with pytest.raises(RuntimeError, match=r"params: .* not seen before the capture of a graph\. Call once before"):
        found(tables, capture, "a", 1)
    before = found(tables, Place(CPU, 0, False), "a", 1)  # the warm-up, on another stream
    assert found(tables, capture, "a", 1) is before
    for key in ("b", "c", "d"):
        found(tables, Place(CPU, 0, False), key, 1)
    assert found(tables, capture, "a", 1) is before  # a graph may be replayed for ever
    assert tables.uploads == 4


def test_a_lane_adds_up_no_more_than_a_run() -> None:
    """A lane takes an element of each row of a chunk, all of them in float32."""
    from fused_penalty._core.plan import GPU_CHUNK
    from fused_penalty._kernels.triton.elastic_net import RUN
    from fused_penalty._kernels.triton.walk import LOADS, THREADS

    assert (16 * THREADS.value, LOADS.value) == (edges.ROW_BYTES, edges.LOADS)  # where the edge cases are
    assert RUN.value * THREADS.value * 16 // 4 >= GPU_CHUNK  # a row is 16 bytes for each thread


def test_layout_words() -> None:
    from fused_penalty.torch.backends.triton import layout_words

    sizes = (40_000, 0, 5)
    plan = plan_of_layout(np.array([s << BITS | 2 for s in sizes], np.uint64).tobytes(), 3, 1 << 14)
    table = layout_words(plan)
    chunks = len(plan.table)
    assert chunks == 4
    assert table[: 2 * chunks].tobytes() == plan.table.tobytes()
    assert table[2 * chunks :].tolist() == [0, 3, 3, 4]
