from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight CPU devices, so that tests of placement need no hardware.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

# Two files are tested at a time: the threads of OpenMP would spin while they wait for each other's processor. Tests of
# threads ask for them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.support import frontends

# Files of few tests that take minutes. They come first, so that no worker is left with one when the others are done.
LONG = ("tests/triton/test_suite.py", "tests/kernels/test_sanitizers.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(params=list(frontends.params()))
def frontend(request: pytest.FixtureRequest) -> frontends.Frontend:
    """A framework with one of its backends."""
    return frontends.make(request.param)


@pytest.fixture(params=list(frontends.DTYPES))
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param
