"""The promises of docs/reliability.md with small counts, and the program that writes the page (`make reliability`)."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

for name in ("torch", "jax", "rich"):
    pytest.importorskip(name, reason=f"{name} is not installed")

from tests.reliability import page, suites
from tests.reliability.__main__ import PROMISES, SUITES
from tests.reliability.promises import QUICK, Found, in_a_process

QUICKLY = [p.name for p in PROMISES]


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    """All of them in one process."""
    return in_a_process(QUICKLY, QUICK, timeout=300)


@pytest.mark.parametrize("name", QUICKLY)
def test_promise(found: dict[str, Found], name: str) -> None:
    assert found[name].kept, found[name].figure


def test_a_suite_is_counted_and_its_failure_is_seen(tmp_path: Path) -> None:
    good, bad, none = (tmp_path / f"test_{name}.py" for name in ("good", "bad", "none"))
    good.write_text("import os\ndef test_a(): pass\ndef test_b(): assert os.environ['FUSED_PENALTY_EXAMPLES'] == '7'\n")
    bad.write_text("def test_c(): assert False\n")
    assert suites.run([good], 7)[0] == 2
    none.write_text("import pytest\n@pytest.mark.skip(reason='never')\ndef test_d(): pass\n")
    assert suites.run([good, bad], 7)[0] is False
    assert suites.run([none], 7)[0] is None
    assert suites.suite(("test_that_is_not_there.py",), "")(QUICK).kept is False


def test_a_crash_breaks_the_promise() -> None:
    assert in_a_process(["no such promise"], QUICK)["no such promise"].kept is False


def test_the_page() -> None:
    rows = [(p, Found("1 | 2", kept)) for p, kept in zip((*PROMISES, *SUITES), [True, False, None] * 9, strict=False)]
    machine = {"cpu": "X", "cores": 2, "system": "Linux", "python": "3", "packages": {"torch": "1", "optax": "2"}}
    text = page.render(machine, rows, {"JAX": {"disable_jit": "right"}}, datetime.date(2026, 1, 2))
    assert "2026-01-02: X, 2 cores, Linux; Python 3, torch 1.\n" in text
    assert "1 \\| 2 | kept |" in text
    assert "| BROKEN |" in text
    assert "| disable_jit | right |" in text
    page.show(rows)
