"""What the tests of meshes are run with."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["cpu", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["auto", "explicit"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of a mesh's axes."""
    return request.param
