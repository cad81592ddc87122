"""The penalty's value and gradient, into fresh gradients."""

from __future__ import annotations

from typing import Any

import pytest

from cases import DTYPES, MODELS, Tree
from contenders import GRADIENT, Contender
from measure import cases, measure, minor_faults


@pytest.mark.parametrize(("tree", "row"), cases(GRADIENT, MODELS, DTYPES), indirect=["tree"])
def test_gradient(benchmark: Any, tree: Tree, row: Contender) -> None:
    call = row.build(tree)
    measure(benchmark, tree, call, launches=row.launches(len(tree.leaves)))
    benchmark.extra_info["minor_faults"] = minor_faults(call)
