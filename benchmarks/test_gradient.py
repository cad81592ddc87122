"""The penalty's value and gradient, into fresh gradients."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.contenders.table import GRADIENT, Contender
from benchmarks.harness.measure import cases, measure, minor_faults
from benchmarks.models.cases import DTYPES, MODELS, Tree


@pytest.mark.parametrize(("tree", "row"), cases(GRADIENT, MODELS, DTYPES), indirect=["tree"])
def test_gradient(benchmark: Any, tree: Tree, row: Contender) -> None:
    call = row.build(tree)
    measure(benchmark, tree, call, launches=row.launches(len(tree.leaves)))
    benchmark.extra_info["minor_faults"] = minor_faults(call)
