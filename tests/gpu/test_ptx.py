"""The PTX that nvcc emits, run by ptxemu: the same bits as the emulated source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cases import check, mixed, same_bits
from frontends import DTYPES
from harness import CHUNK, GRADIENT, SUMS, Case, Result, build, emulate, toolkit
from ptx import compile_ptx, run_ptx
from ptxemu import Module

pytestmark = pytest.mark.skipif(toolkit() is None, reason="needs nvcc")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="module", params=["sm_80", "sm_90", "sm_100"])
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Module:
    return compile_ptx(tmp_path_factory.mktemp("ptx"), request.param)


def small(op: int, dtype: np.dtype, anchored: bool) -> Case:
    rng = np.random.default_rng(11)
    pack = 16 // dtype.itemsize
    leaves = [rng.standard_normal(n).astype(dtype) for n in (0, 1, pack + 1, CHUNK, 2 * CHUNK + 3, 5 * pack)]
    anchors = [rng.standard_normal(x.size).astype(dtype) for x in leaves] if anchored else None
    return Case(op, leaves, anchors, skew=[0, 1, 0, 0, 1, pack - 1])


@pytest.mark.parametrize("anchored", [False, True], ids=["plain", "anchored"])
@pytest.mark.parametrize("op", [SUMS, GRADIENT], ids=["sums", "gradient"])
def test_bit_equal_to_the_source(
    module: Module, program: Path, tmp_path: Path, op: int, anchored: bool, dtype: str
) -> None:
    case = small(op, DTYPES[dtype], anchored)
    source = emulate(program, case, tmp_path)
    assert isinstance(source, Result), source
    found = run_ptx(module, case)
    check(case, found)
    if dtype == "float64":  # a fused multiply-add in float64 is emulated with one rounding too many
        np.testing.assert_allclose(found.sums, source.sums, rtol=2.0**-52)
        for g, h in zip(found.gradients, source.gradients, strict=True):
            np.testing.assert_allclose(g, h, rtol=2.0**-52)
    else:
        same_bits(source, found)


@pytest.mark.parametrize("op", [SUMS, GRADIENT], ids=["sums", "gradient"])
def test_mixed_dtypes_warp_by_warp(module: Module, program: Path, tmp_path: Path, op: int) -> None:
    """Warps run in random order, which shows a missing barrier; grids differ, the bits do not."""
    case = mixed(op)
    source = emulate(program, case, tmp_path)
    assert isinstance(source, Result), source
    for grid, seed in ((1, 1), (5, 2)):
        found = run_ptx(module, case, grid=grid, gran="warp", seed=seed)
        check(case, found)
        np.testing.assert_array_equal(found.sums, source.sums)
