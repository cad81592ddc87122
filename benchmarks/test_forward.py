"""The penalty's value."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.contenders.table import FORWARD, Contender
from benchmarks.harness.measure import cases, measure, relative_error
from benchmarks.models.cases import DTYPES, MODELS, Tree


@pytest.mark.parametrize(("tree", "row"), cases(FORWARD, MODELS, DTYPES), indirect=["tree"])
def test_forward(benchmark: Any, tree: Tree, row: Contender) -> None:
    call = row.build(tree)
    measure(benchmark, tree, call, launches=row.launches(len(tree.leaves)))
    if "limit" not in row.name:
        benchmark.extra_info["relative_error"] = relative_error(call(), tree)
