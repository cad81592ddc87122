"""DTensor, FSDP2, HSDP, tensor parallel and DDP over 2 and 4 processes (gloo, loopback)."""

from __future__ import annotations

import functools
import inspect

import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch.distributed

if not torch.distributed.is_available():
    pytest.skip("this torch was built without distributed", allow_module_level=True)

from tests.support import ranks
from tests.torch_only.mesh import arguments, norms, optim, placements, refusals, steps, strengths, writes

CHECKS = [
    f"{module.__name__}.{name}"
    for module in (placements, arguments, refusals, steps, strengths, writes, norms, optim)
    for name, f in vars(module).items()
    if inspect.isfunction(f) and list(inspect.signature(f).parameters) == ["rank", "world"]
]
COMPILED = f"{arguments.__name__}.under_compile"  # takes seconds per process, and is the same with more of them
CASES = [(world, check) for world in (2, 4) for check in CHECKS if world == 2 or check != COMPILED]


@functools.cache
def outcomes(world: int) -> dict[str, str]:
    """One start of the processes for all checks."""
    return ranks.run([check for w, check in CASES if w == world], world)


@pytest.mark.parametrize(("world", "check"), CASES)
def test_on_every_rank(world: int, check: str) -> None:
    outcome = outcomes(world)[check]
    assert outcome == ranks.OK, outcome
