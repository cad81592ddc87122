"""What stands around the code: metadata, forms, CI. They agree with each other and name nothing of one machine."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from fused_penalty.doctor import PACKAGES
from tests.support.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
AROUND = [ROOT / f for f in ("CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "pyproject.toml", "CHANGELOG.md")]


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    for key, value in (("version", PROJECT["version"]), ("license", PROJECT["license"])):
        assert re.search(rf"^{key}: {re.escape(value)}$", text, re.MULTILINE)
    assert PROJECT["authors"][0]["name"] in text
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_script_is_the_program() -> None:
    module, _, name = PROJECT["scripts"]["fused-penalty"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_doctor_knows_the_frameworks_of_the_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = {re.split(r"[><=\[]", r)[0] for extra in ("jax", "torch", "optax") for r in extras[extra]}
    assert needed <= set(PACKAGES)


def test_forms_and_workflows() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    for form in FORMS:
        found = yaml.safe_load(form.read_text())
        if form.name != "config.yml":
            labels = [part["attributes"]["label"] for part in found["body"]]
            assert labels[0] == "Output of `fused-penalty doctor`"
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert "make lint test" in steps
    named = {
        c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    }
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) <= named
    assert {f"3.{minor}" for minor in re.findall(r"cp3(\d+)-", PYPROJECT["tool"]["cibuildwheel"]["build"])} == named
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert set(release["publish"]["needs"]) == release.keys() - {"publish"}
    assert release["publish"]["permissions"] == {"id-token": "write"}  # trusted publishing: there is no password
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["cff-version"] == "1.2.0"


@pytest.mark.parametrize("file", [*AROUND, *FORMS, *(ROOT / ".github" / "workflows").glob("*")], ids=lambda f: f.name)
def test_nothing_of_one_machine(file: Path) -> None:
    """Neither folders of a user nor the hosts of a mirror; links lead to files that are there."""
    text = file.read_text()
    assert not re.search(
        r"(?<![\w.])/(work|home|root|Users|opt|tmp)/|index-url|https?://[\w.]*(pypi|mirror|proxy)", text
    )
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (file.parent / target).exists(), target
