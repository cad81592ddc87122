"""The PTX that the module carries, run by ptxemu: the same bits as the emulated source."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_penalty._core.operations import Op
from tests.emulation.cases import check, mixed, same_bits
from tests.emulation.harness import CHUNK, Case, Result, build, emulate, toolkit
from tests.emulation.ptx.emulator import Module
from tests.emulation.ptx.program import read_ptx, run_ptx
from tests.support.frontends import DTYPES

pytestmark = pytest.mark.skipif(
    toolkit() is None, reason="the emulated source needs the headers of a CUDA toolkit (nvcc)"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("emulated"))


# Every operation for one architecture; for the other those from which the rest differs by a line of arithmetic.
OPS = {"70": (Op.SUMS, Op.GRADIENT), "80": tuple(Op)}
EVERY = [pytest.param(arch, op, id=f"{arch}-{op.name.lower()}") for arch, ops in OPS.items() for op in ops]


@pytest.fixture(scope="module")
def modules() -> Callable[[str], Module]:
    return functools.cache(lambda arch: read_ptx(arch, OPS[arch]))


def small(op: Op, dtype: np.dtype, anchored: bool) -> Case:
    rng = np.random.default_rng(11)
    pack = 16 // dtype.itemsize
    leaves = [rng.standard_normal(n).astype(dtype) for n in (0, 1, pack + 1, CHUNK, 2 * CHUNK + 3, 5 * pack)]
    anchors = [rng.standard_normal(x.size).astype(dtype) for x in leaves] if anchored else None
    return Case(op, leaves, anchors, skew=[0, 1, 0, 0, 1, pack - 1])


@pytest.mark.parametrize("anchored", [False, True], ids=["plain", "anchored"])
@pytest.mark.parametrize(("arch", "op"), EVERY)
def test_bit_equal_to_the_source(
    modules: Any, program: Path, tmp_path: Path, arch: str, op: Op, anchored: bool, dtype: str
) -> None:
    case = small(op, DTYPES[dtype], anchored)
    source = emulate(program, case, tmp_path)
    assert isinstance(source, Result), source
    found = run_ptx(modules(arch), case)
    check(case, found)
    if dtype == "float64":  # a fused multiply-add in float64 is emulated with one rounding too many
        np.testing.assert_allclose(found.totals, source.totals, rtol=2.0**-52)
        for g, h in zip(found.outs, source.outs, strict=True):
            np.testing.assert_allclose(g, h, rtol=2.0**-52)
    else:
        same_bits(source, found)


@pytest.mark.parametrize("op", [Op.SUMS, Op.GRADIENT, Op.STATS], ids=["sums", "gradient", "stats"])
def test_mixed_dtypes_warp_by_warp(modules: Any, program: Path, tmp_path: Path, op: Op) -> None:
    """Warps run in random order, which shows a missing barrier; grids differ, the bits do not."""
    case = mixed(op)
    source = emulate(program, case, tmp_path)
    assert isinstance(source, Result), source
    for grid, seed in ((1, 1), (5, 2)):
        found = run_ptx(modules("80"), case, grid=grid, gran="warp", seed=seed)
        check(case, found)
        np.testing.assert_array_equal(found.totals, source.totals)
