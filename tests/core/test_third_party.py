"""The vendored headers are no newer than the frameworks that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FFI = Path("xla", "ffi", "api")
README = (ROOT / "third_party" / "README.md").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def defined(header: Path, name: str) -> int:
    found = re.search(rf"^#define {name} (\d+)$", header.read_text(), re.MULTILINE)
    assert found, f"{header} does not define {name}"
    return int(found[1])


def ffi_api(headers: Path) -> tuple[int, int]:
    return (defined(headers / "c_api.h", "XLA_FFI_API_MAJOR"), defined(headers / "c_api.h", "XLA_FFI_API_MINOR"))


def parts(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def test_the_ffi_headers_are_of_the_oldest_jaxlib() -> None:
    """XLA refuses a handler of an API newer than its own only when a program calls it."""
    jaxlib = pytest.importorskip("jaxlib", reason="jaxlib is not installed")
    ours = ROOT / "third_party" / "xla" / FFI
    theirs = Path(jaxlib.__file__).parent / "include" / FFI
    major, minor = ffi_api(ours)
    match = re.search(r"FFI headers, API (\d+)\.(\d+), as shipped in jaxlib ([\d.]+) ", README)
    assert match
    assert (int(match[1]), int(match[2])) == (major, minor)
    oldest = match[3]
    (declared,) = (r.partition(">=")[2] for r in EXTRAS["jax"] if r.startswith("jaxlib"))
    assert [*parts(declared), 0, 0][:3] == parts(oldest)
    assert ffi_api(theirs)[0] == major
    assert ffi_api(theirs)[1] >= minor
    if version("jaxlib") == oldest:
        for name in ("api.h", "c_api.h", "ffi.h"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_dlpack_is_what_torch_gives() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    ours = ROOT / "third_party" / "dlpack" / "dlpack.h"
    theirs = Path(torch.__file__).parent / "include" / "ATen" / "dlpack.h"
    assert hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
    for name, least in (("DLPACK_MAJOR_VERSION", 1), ("DLPACK_MINOR_VERSION", 3)):
        assert defined(ours, name) == least
        assert defined(theirs, name) >= least
