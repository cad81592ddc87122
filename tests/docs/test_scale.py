"""docs/scale.md holds what its script computes and counts today."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("jax", reason="jax is not installed")

import benchmarks.scale.__main__ as scale

FEW, MANY = 1, 64


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    return scale.count(FEW, MANY)


@pytest.fixture(scope="module")
def page() -> str:
    return scale.PAGE.read_text()


def table_of(page: str, name: str) -> str:
    return page.split(scale.mark(name))[1].strip()


@pytest.mark.parametrize("name", ["inputs", "model", "launches"])
def test_the_page_holds_the_table(counted: dict[str, Any], page: str, name: str) -> None:
    assert table_of(page, name) == scale.tables(counted)[name]


def test_the_page_holds_the_counts_of_the_compiler(counted: dict[str, Any], page: str) -> None:
    """But for the number of the naive operations, which depends on how XLA fuses for this CPU."""
    rows = {tuple(line.split(" | ")[:2]): line.split(" | ") for line in table_of(page, "hlo").splitlines()}
    for line in scale.hlo_table(counted["jax"]).splitlines()[2:]:
        now = line.split(" | ")
        then = rows[tuple(now[:2])]
        assert now[:6] + now[7:] == then[:6] + then[7:]
        assert int(now[6]) > 2 * 148


def test_parameters_of_the_models() -> None:
    """As published: Llama 3.2 1B, Llama 3 8B, 70B, 405B."""
    found = [sum(m.leaves()) for m in scale.MODELS]
    assert found == [1_235_814_400, 8_030_261_248, 70_553_706_496, 405_853_388_800]
