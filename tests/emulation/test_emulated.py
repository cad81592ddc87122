"""The CUDA sources as host C++: every case, several schedules and grids, three sanitizers, seeded faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fused_penalty._core.operations import Op
from tests.emulation.cases import check, every_case, many, matrix, mixed, same_bits
from tests.emulation.harness import Result, build, emulate, toolkit
from tests.support.frontends import DTYPES

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the emulator needs the headers of a CUDA toolkit (nvcc)")

CASES = dict(every_case())
SCHEDULES = ((1, 1), (3, 2), (13, 3))  # (grid, seed)
ASAN = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TSAN = ("-fsanitize=thread",)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def asan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("asan"), ASAN)


@pytest.fixture(scope="module")
def tsan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tsan"), TSAN, only=Op.GRADIENT)


def ran(found: Result | str) -> Result:
    assert isinstance(found, Result), found
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_case_on_three_schedules(name: str, plain: Path, tmp_path: Path) -> None:
    case = CASES[name]
    results = [ran(emulate(plain, case, tmp_path, grid=grid, seed=seed)) for grid, seed in SCHEDULES]
    check(case, results[0])
    for other in results[1:]:  # the same bits, whatever the grid and the order of threads
        same_bits(results[0], other)


@pytest.mark.parametrize(("op", "leaves"), [(Op.SUMS, 2000), (Op.GRADIENT, 1000), (Op.SUMS, 5000)])
def test_thousands_of_leaves(op: Op, leaves: int, plain: Path, tmp_path: Path) -> None:
    """2,000 leaves forward and 1,000 with gradients travel with the launch; more go through the table."""
    case = many(op, leaves)
    check(case, ran(emulate(plain, case, tmp_path, grid=5, seed=1)))


# Operations that write differ by a line of arithmetic: all cases for one of them, some for the others.
SOME = ("float32-anchored", "-float16", "mixed")
SOUND = [n for n in CASES if n.startswith(("sums", "gradient")) or n.endswith(SOME)]


@pytest.mark.parametrize("name", SOUND)
def test_memory_is_sound(name: str, asan: Path, tmp_path: Path) -> None:
    same_bits(ran(emulate(asan, CASES[name], tmp_path)), ran(emulate(asan, CASES[name], tmp_path, grid=7, seed=4)))


def test_no_race(tsan: Path, tmp_path: Path) -> None:
    case = matrix(Op.GRADIENT, DTYPES["float32"], True)
    case = type(case)(Op.GRADIENT, case.leaves[:12], case.anchors[:12] if case.anchors else None)
    check(case, ran(emulate(tsan, case, tmp_path, grid=4, seed=1, environment={"CUDA_EMUL_YIELD": "1"})))


FAULTS = {
    "a missing barrier": (
        ("partials.h", "warps[threadIdx.x / 32] = mine;\n  __syncthreads();", "warps[threadIdx.x / 32] = mine;"),
        (), "wrong",
    ),
    "a missing fence": (("partials.h", "__threadfence();  // this block's", "// this block's"), TSAN, "data race"),
    "a read past the end": (
        ("walk.h", "elements(after_packs, n);", "elements(after_packs, n + 1);"), ASAN, "heap-buffer-overflow",
    ),
    "a misaligned vector load": (
        ("walk.h", "const int head = min(n, static_cast<int>((16 - skew) % 16 / sizeof(T)));", "const int head = 0;"),
        ASAN, "misaligned address",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_faults_are_caught(name: str, tmp_path: Path) -> None:
    """The test of the test."""
    (file, text, replacement), flags, report = FAULTS[name]
    program = build(tmp_path, flags, (f"cuda/{file}", text, replacement), only=Op.SUMS)
    case = mixed(Op.SUMS) if name != "a misaligned vector load" else matrix(Op.SUMS, DTYPES["float32"], False)
    for seed in range(1, 6):
        found = emulate(program, case, tmp_path, grid=4, seed=seed, environment={"CUDA_EMUL_YIELD": "1"})
        if report == "wrong":
            if isinstance(found, str):
                return
            try:
                with np.errstate(invalid="ignore"):
                    check(case, found)
            except AssertionError:
                return
        elif isinstance(found, str):
            assert report in found
            return
    pytest.fail(f"{name} went unnoticed")
