"""Strengths for each leaf, and the notebook's number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fused_penalty as fp
from tests.support import oracle
from tests.support.frontends import Frontend

TREE = {
    "encoder": {"kernel": np.float32([0.5, -1.2, 0.8]), "bias": np.float32([0.2, -0.1])},
    "head": {"kernel": np.float32([2.0]), "bias": np.float32([3.0])},
}
FLAT = {f"{a}.{b}": x for a, part in TREE.items() for b, x in part.items()}


def expected(l1: dict[str, float], l2: float = 0.0) -> float:
    return oracle.penalty(list(FLAT.values()), [l1[k] for k in FLAT], [l2] * 4)


def run(frontend: Frontend, l1: Any, l2: Any = 0.0, **kw: Any) -> float:
    return float(frontend.verbs.penalty(frontend.to(TREE), l1, l2, backend=frontend.backend, **kw))


def test_separate_strengths_for_weights_and_biases(frontend: Frontend) -> None:
    """The course notebook: data loss 0.3 and four strengths give 0.328855."""
    params = {"w": np.float32([0.5, -1.2, 0.8]), "b": np.float32([0.2, -0.1])}
    total = 0.3 + frontend.verbs.penalty(
        frontend.to(params), {"w": 0.01, "b": 0.005}, {"w": 0.001, "b": 0.0005}, backend=frontend.backend
    )
    assert float(total) == pytest.approx(0.328855, abs=5e-7)


def test_prefix_trees(frontend: Frontend) -> None:
    by_part = {"encoder.kernel": 0.1, "encoder.bias": 0.1, "head.kernel": 0.2, "head.bias": 0.3}
    found = run(frontend, {"encoder": 0.1, "head": {"kernel": 0.2, "bias": 0.3}}, 0.01)
    assert found == pytest.approx(expected(by_part, 0.01), rel=1e-6)


def test_by_path(frontend: Frontend) -> None:
    found = run(frontend, fp.by_path({"head.*": 0.5, "*bias": 0.0, "*": 1e-2}))
    strengths = {"encoder.kernel": 1e-2, "encoder.bias": 0.0, "head.kernel": 0.5, "head.bias": 0.5}
    assert found == pytest.approx(expected(strengths), rel=1e-6)


def test_by_leaf(frontend: Frontend) -> None:
    found = run(frontend, fp.by_leaf(lambda path, leaf: 0.1 * leaf.shape[0] if "kernel" in path else 0.0))
    strengths = {"encoder.kernel": 0.1 * 3, "encoder.bias": 0.0, "head.kernel": 0.1, "head.bias": 0.0}
    assert found == pytest.approx(expected(strengths), rel=1e-6)


def test_rules_see_selected_leaves_only(frontend: Frontend) -> None:
    seen = []
    run(frontend, fp.by_leaf(lambda path, leaf: seen.append(path) or 0.1), mask={"encoder": True, "head": False})
    assert sorted(seen) == ["encoder.bias", "encoder.kernel"]
    # a leaf that is masked needs no pattern, and a pattern that meets only masked leaves is used
    found = run(frontend, fp.by_path({"encoder.*": 0.1}), mask={"encoder": True, "head": False})
    both = run(frontend, fp.by_path({"encoder.*": 0.1, "head.*": 9.0}), mask={"encoder": True, "head": False})
    assert found == both


@pytest.mark.parametrize("strength", [2, np.float32(2), np.float64(2), np.int64(2), np.array(2.0)])
def test_scalars_of_every_kind(frontend: Frontend, strength: Any) -> None:
    assert run(frontend, strength) == pytest.approx(run(frontend, 2.0))


def test_device_scalars(frontend: Frontend) -> None:
    assert run(frontend, frontend.to(np.float32(0.5)), frontend.to(np.float32(0.25))) == pytest.approx(
        run(frontend, 0.5, 0.25), rel=1e-6
    )
