"""A step of `attach` whose values did not change takes nothing from the host: then a CUDA graph can hold it.

Counted on the CPU: every tensor made of Python numbers, and every number read back, would be a copy there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

import fused_penalty as fp

torch = pytest.importorskip("torch")

from torch.overrides import TorchFunctionMode

from fused_penalty.torch import attach
from fused_penalty.torch.strengths import spread
from tests.torch_only.attach.steps import linear

MAKES = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, torch.scalar_tensor, torch.Tensor.numpy}
READS = {torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__float__, torch.Tensor.__bool__, torch.Tensor.__int__}


class Transfers(TorchFunctionMode):
    """What goes between Python's numbers and tensors."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        of_a_tensor = function is torch.as_tensor and isinstance(args[0], torch.Tensor)
        if function in MAKES | READS and not of_a_tensor:
            self.seen.append(f"{function.__name__}({args[0]!r})")
        return function(*args, **(kwargs or {}))


def transfers_of(call: Callable[[], Any]) -> list[str]:
    with Transfers() as transfers:
        call()
    return transfers.seen


def test_the_count_sees_what_it_should() -> None:
    x = torch.ones(2)
    assert len(transfers_of(lambda: torch.tensor([1.0, 2.0]) + torch.as_tensor(3.0))) == 2
    assert len(transfers_of(lambda: (float(x[0]), x.sum().item(), x.tolist(), bool(x[0] > 0)))) == 4
    assert transfers_of(lambda: torch.as_tensor(x, dtype=torch.float64) * 2 + torch.full((2,), 3.0)) == []


def kind(case: str) -> dict[str, bool]:
    return {"fused" if case == "grad_scale" else "foreach": case == "grad_scale"}


def optimizer_of(case: str) -> tuple[Any, dict[str, Any]]:
    """An optimizer of two groups, and the strengths for `attach`."""
    model = linear()
    first, second = dict(model.named_parameters()).items()
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second]}]
    strengths: dict[str, Any] = {"l1": 0.1, "l2": 0.2}
    if case == "groups that differ":
        groups[0] |= {"lr": 0.5, "l2": 0.7, "maximize": True}
    elif case == "tensors":
        strengths["l1"] = torch.tensor(0.1)
        groups[0] |= {"lr": torch.tensor(0.5), "l2": torch.tensor(0.7)}
    elif case == "a rule":
        strengths["l1"] = fp.by_path({"*bias": 0.0, "*": 0.3})
    elif case == "a tree":
        strengths["l2"] = {"weight": 0.1, "bias": torch.tensor(0.2)}
    elif case == "grad_scale":
        groups[0] |= {"maximize": True}
    optimizer = torch.optim.SGD(groups, lr=0.1, **kind(case))
    if case == "grad_scale":
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return optimizer, strengths


CASES = ["groups that agree", "groups that differ", "tensors", "a rule", "a tree", "grad_scale"]


@pytest.mark.parametrize("mode", ["grad", "prox"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_from_the_second_step_on(case: str, mode: str) -> None:
    optimizer, strengths = optimizer_of(case)
    bare = torch.optim.SGD([{**g} for g in optimizer.param_groups], lr=0.1, **kind(case))
    attach(optimizer, **strengths, mode=mode)
    bare.step()
    optimizer.step()
    for _ in range(2):
        assert transfers_of(optimizer.step) == transfers_of(bare.step)


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_only_the_step_that_finds_another_value(mode: str) -> None:
    optimizer, strengths = optimizer_of("groups that differ")
    handle = attach(optimizer, **strengths, mode=mode)
    optimizer.step()
    new = [0.123, 0.456, 0.789] if mode == "grad" else [0.234, 0.567, 0.891]  # nobody has seen these
    for name, value in itertools.product(("lr", "l1", "l2"), new[:2]):
        optimizer.param_groups[1][name] = value
        changed = transfers_of(optimizer.step)
        assert bool(changed) == (name != "lr" or mode == "prox")
        assert transfers_of(optimizer.step) == []
    handle.l2 = new[2]  # the first group has its own
    assert transfers_of(optimizer.step)
    assert transfers_of(optimizer.step) == []


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_a_schedule_of_all_groups_copies_nothing(mode: str) -> None:
    """One value for all leaves is a fill."""
    optimizer, strengths = optimizer_of("groups that agree")
    attach(optimizer, **strengths, mode=mode)
    optimizer.step()
    for k, name in itertools.product(range(1, 4), ("lr", "l1", "l2")):
        for g in optimizer.param_groups:
            g[name] = 0.01 * k
        assert transfers_of(optimizer.step) == []


def test_values_spread_over_leaves() -> None:
    a, b = torch.tensor(0.5), torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    of_leaf = [1, 1, 0, 2, 1]
    for values in ([0.5, 0.25, 4.0], [0.5, 0.5, 0.5], [a, b, 4.0], [0.5, b, a]):
        found = spread(values, of_leaf, a.device)
        assert found.dtype == torch.float64
        assert found.tolist() == [float(torch.as_tensor(values[g]).detach()) for g in of_leaf]
    spread([a, b, 4.0], of_leaf, a.device).sum().backward()
    assert b.grad == 3
    with torch.inference_mode():
        kept = spread([0.5, 7.0], [0, 1], a.device)
    assert not kept.is_inference()  # the next call outside gets the same memory
