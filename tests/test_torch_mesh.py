"""DTensor, FSDP2, HSDP, tensor parallel and DDP over 2 and 4 processes (gloo, loopback)."""

from __future__ import annotations

import inspect

import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch.distributed

if not torch.distributed.is_available():
    pytest.skip("this torch was built without distributed", allow_module_level=True)

import mesh_checks
import ranks

CHECKS = [
    name
    for name, f in vars(mesh_checks).items()
    if inspect.isfunction(f) and list(inspect.signature(f).parameters) == ["rank", "world"]
]


@pytest.fixture(scope="module", params=[2, 4], ids=lambda n: f"{n}ranks")
def outcomes(request: pytest.FixtureRequest) -> dict[str, str]:
    return ranks.run("mesh_checks", CHECKS, request.param)


@pytest.mark.parametrize("check", CHECKS)
def test_on_every_rank(outcomes: dict[str, str], check: str) -> None:
    assert outcomes[check] == ranks.OK, outcomes[check]
