"""Tests of torch alone: every backend of torch, no JAX."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from tests.support import frontends


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For thousands of small calls: a region of OpenMP takes many times longer while another process has its core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=list(frontends.params("torch")))
def frontend(request: pytest.FixtureRequest) -> frontends.Frontend:
    """Torch with one of its backends."""
    return frontends.make(request.param)
