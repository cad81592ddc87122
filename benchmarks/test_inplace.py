"""The penalty's share added to gradients that exist, and updates of the parameters themselves."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.contenders.table import INPLACE, Contender
from benchmarks.harness.measure import cases, measure, minor_faults
from benchmarks.models.cases import DTYPES, MODELS, Tree


@pytest.mark.parametrize(("tree", "row"), cases(INPLACE, MODELS, DTYPES), indirect=["tree"])
def test_inplace(benchmark: Any, tree: Tree, row: Contender) -> None:
    call = row.build(tree)
    measure(benchmark, tree, call, launches=row.launches(len(tree.leaves)))
    benchmark.extra_info["minor_faults"] = minor_faults(call)
