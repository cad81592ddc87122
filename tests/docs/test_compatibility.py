"""docs/compatibility.md has the ranges of pyproject.toml and the pins of constraints.txt."""

from __future__ import annotations

import re
import tomllib

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROW = re.compile(r"^\| ([\w-]+) \| (\S+) \| ([\d., ]+) \|", re.MULTILINE)


def test_the_table() -> None:
    extras = PROJECT["optional-dependencies"].values()
    declared = dict(
        re.findall(r"([\w-]+)(>=\S+)", "\n".join([*PROJECT["dependencies"], *(r for e in extras for r in e)]))
    )
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    declared["Python"] = PROJECT["requires-python"]
    tested["Python"] = ", ".join(re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])))
    rows = ROW.findall((ROOT / "docs" / "compatibility.md").read_text())
    assert {"Python", "numpy", "torch", "jax", "optax"} <= {name for name, _, _ in rows}
    assert rows == [(name, declared[name], tested[name]) for name, _, _ in rows]
