"""A whole step of SGD, momentum SGD and AdamW: with the penalty in the same pass, beside it, and without one."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.contenders.table import OPTIMIZER, Contender
from benchmarks.harness.measure import cases, measure
from benchmarks.models.cases import DTYPES, MODELS, Tree


@pytest.mark.parametrize(("tree", "row"), cases(OPTIMIZER, MODELS, DTYPES), indirect=["tree"])
def test_optimizer(benchmark: Any, tree: Tree, row: Contender) -> None:
    measure(benchmark, tree, row.build(tree), launches=row.launches(len(tree.leaves)))
