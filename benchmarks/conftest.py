"""One tree in memory at a time: the cases are ordered by tree, and a tree is dropped when the next one comes."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

import pytest

from benchmarks.harness.measure import FULL
from benchmarks.models.cases import CALLS, DTYPES, MODELS, SIZES, Tree, load

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the backends so far; nothing has imported jax yet

ORDER = (*CALLS, *SIZES, *MODELS)
SECONDS_IN_ALL = 260  # of the default run; whatever machine it meets, it ends in time
_start = time.monotonic()
_held: dict[tuple[str, str], Tree | str] = {}


@pytest.fixture
def tree(request: pytest.FixtureRequest) -> Tree:
    """The tree (model, dtype), kept until a case asks for another one."""
    if request.param not in _held:
        _held.clear()
        gc.collect()
        _held[request.param] = load(*request.param)
    found = _held[request.param]
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(autouse=True)
def _identity(request: pytest.FixtureRequest, benchmark: Any) -> None:
    benchmark.extra_info.update(_case(request.node))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (ORDER.index(_case(item)["model"]), DTYPES.index(_case(item)["dtype"])))
    for item in items:
        item.user_properties.append(("case", _case(item)))  # where the report finds it if it is skipped


def pytest_runtest_setup() -> None:
    if not FULL and time.monotonic() - _start > SECONDS_IN_ALL:
        pytest.skip("out of time (5 minutes)")


def _case(item: pytest.Item) -> dict[str, str]:
    """Which case an item is."""
    params = item.callspec.params  # type: ignore[attr-defined]
    (model, dtype), row = params["tree"], params["row"]
    verb = item.originalname.removeprefix("test_")  # type: ignore[attr-defined]
    if verb == "compile":
        verb = f"first {row.verb}"
    return {"verb": verb, "model": model, "dtype": dtype, "framework": row.framework, "name": row.name}
