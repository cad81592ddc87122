"""Tests of torch alone: every backend of torch, no JAX."""

from __future__ import annotations

import pytest

from tests.support import frontends


@pytest.fixture(params=list(frontends.params("torch")))
def frontend(request: pytest.FixtureRequest) -> frontends.Frontend:
    """Torch with one of its backends."""
    return frontends.make(request.param)
