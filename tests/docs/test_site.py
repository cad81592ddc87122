"""The site builds, strictly: links, anchors and the list of pages are checked. It has the whole API, and asks no other
host for anything."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

for name in ("mkdocs", "mkdocstrings", "jax", "optax", "torch"):
    pytest.importorskip(name, reason=f"{name} is not installed")

MODULES = ("", ".jax", ".jax.optim", ".optax", ".torch", ".torch.optim")
# Whom the pages link to: a new one is written down here, and looked at.
LINKED = {"arxiv.org", "github.com", "semver.org", "squidfunk.github.io", "susun-blog.com", "www.nvidia.com"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return folder


def test_pages(site: Path) -> None:
    assert "<h2 id=" in (site / "index.html").read_text()
    assert not list(site.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_all_that_is_public(site: Path, module: str) -> None:
    name = f"fused_penalty{module}"
    page = (site / "api" / f"{module.removeprefix('.').replace('.', '_') or 'index'}.html").read_text()
    ids = set(re.findall(r'id="([\w.]+)"', page))
    missing = {public for public in importlib.import_module(name).__all__ if f"{name}.{public}" not in ids}
    assert {p for p in missing if not any(i.startswith(f"{name}.") and i.endswith(f".{p}") for i in ids)} == set()
    assert "&gt;&gt;&gt;" in page  # examples are code, not quotations in quotations


@pytest.mark.parametrize("module", ["keras", "lightning", "transformers"])
def test_the_reference_has_the_training_libraries(site: Path, module: str) -> None:
    """By the source: their packages are not here."""
    source = (ROOT / "python" / "fused_penalty" / f"{module}.py").read_text()
    public = ast.literal_eval(re.search(r"^__all__ = (.+)$", source, re.MULTILINE)[1])  # type: ignore[index]
    ids = set(re.findall(r'id="([\w.]+)"', (site / "api" / "trainers.html").read_text()))
    assert {f"fused_penalty.{module}.{name}" for name in public} <= ids


def test_links_to_elsewhere(site: Path) -> None:
    hosts, asked = set(), set()
    for page in site.rglob("*.html"):
        text = page.read_text()
        hosts |= set(re.findall(r'<a href="https?://([\w.-]+)', text))
        asked |= set(re.findall(r'<(?:script|img|link)[^>]* (?:src|href)="(https?://[^"]+)', text))
    assert hosts <= LINKED
    assert asked == set()
