from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight CPU devices, so that tests of placement need no hardware.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import pytest

from tests.support import frontends


@pytest.fixture(params=list(frontends.params()))
def frontend(request: pytest.FixtureRequest) -> frontends.Frontend:
    """A framework with one of its backends."""
    return frontends.make(request.param)


@pytest.fixture(params=list(frontends.DTYPES))
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param
