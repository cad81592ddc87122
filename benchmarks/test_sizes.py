"""One leaf of a size from one megabyte to more than any cache holds."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.contenders.sizes import ROWS
from benchmarks.contenders.table import Contender
from benchmarks.harness.measure import cases, measure
from benchmarks.models.cases import DTYPES, SIZES, Tree


@pytest.mark.parametrize(("tree", "row"), cases(ROWS, SIZES, DTYPES), indirect=["tree"])
def test_sizes(benchmark: Any, tree: Tree, row: Contender) -> None:
    measure(benchmark, tree, row.build(tree))
