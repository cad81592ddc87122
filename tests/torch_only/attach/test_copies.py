"""A copied or unpickled optimizer has the penalty of the original, once."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest

import fused_penalty as fp
from tests.support.fresh import run_fresh

torch = pytest.importorskip("torch")

from fused_penalty.torch import attach
from tests.torch_only.attach.steps import L1, L2, RATE, backward, check_a_step, linear, make


def by_deepcopy(optimizer: Any) -> Any:
    return copy.deepcopy(optimizer)


def by_pickle(optimizer: Any) -> Any:
    return pickle.loads(pickle.dumps(optimizer))


def by_torch_save(optimizer: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(optimizer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def twice(optimizer: Any) -> Any:
    return by_pickle(copy.deepcopy(optimizer))


@pytest.mark.parametrize("mode", ["grad", "prox"])
@pytest.mark.parametrize("how", [by_deepcopy, by_pickle, by_torch_save, copy.copy, twice])
@pytest.mark.parametrize("stepped", [False, True])
def test_have_the_penalty_once(how: Any, mode: str, stepped: bool) -> None:
    _, optimizer, handle = make(mode=mode)
    if stepped:
        check_a_step(optimizer, mode)
    other = how(optimizer)
    assert type(other) is type(optimizer)
    check_a_step(other, mode)
    check_a_step(optimizer, mode)
    other.load_state_dict(torch.optim.SGD([{"params": [p]} for p in linear().parameters()], lr=RATE).state_dict())
    check_a_step(other, mode)
    with pytest.raises(ValueError, match="has a penalty already"):
        attach(other, L1)
    if how is not copy.copy:  # a shallow copy has the very groups and handle
        assert other.fused_penalty is not handle
        other.fused_penalty.l1 = 0.9
        check_a_step(other, mode, l1=(0.9, 0.9))
        check_a_step(optimizer, mode)
        other.fused_penalty.remove()
        check_a_step(other, mode, l1=(0.0, 0.0), l2=(0.0, 0.0))
        check_a_step(optimizer, mode)


def test_together_with_their_model() -> None:
    model, optimizer, _ = make()
    other, copied = copy.deepcopy((model, optimizer))
    assert copied.param_groups[0]["params"][0] is other.weight
    check_a_step(copied)


@pytest.mark.parametrize("how", [by_deepcopy, by_pickle])
def test_beginning_with_the_handle(how: Any) -> None:
    _, _, handle = make()
    other = how(handle)
    optimizer = other._optimizer
    assert optimizer.fused_penalty is other
    check_a_step(optimizer)


def test_a_tensor_is_shared_by_handle_and_groups() -> None:
    _, optimizer, _ = make(l1=torch.tensor(L1))
    other = by_pickle(optimizer)
    other.fused_penalty.l1.fill_(0.9)
    check_a_step(other, l1=(0.9, 0.9))
    check_a_step(optimizer)


def test_without_the_penalty_they_are_as_ever() -> None:
    _, optimizer, handle = make()
    handle.remove()
    for how in (by_deepcopy, by_pickle):
        other = how(optimizer)
        assert "fused_penalty" not in vars(other)
        check_a_step(other, l1=(0.0, 0.0), l2=(0.0, 0.0))
        attach(other, L1, L2)
        check_a_step(other)


def test_hooks_of_others_are_not_copied() -> None:
    """As torch has it: a hook may be a closure that nobody can pickle."""
    _, optimizer, _ = make()
    calls: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    check_a_step(by_pickle(optimizer))
    assert calls == []
    other = by_pickle(optimizer)
    other.register_step_post_hook(lambda *_: calls.append(2))
    check_a_step(other)
    assert calls == [2]


def test_a_rule_that_cannot_be_pickled_raises() -> None:
    _, optimizer, _ = make(l1=fp.by_leaf(lambda path, leaf: L1))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(optimizer)
    check_a_step(copy.deepcopy(optimizer))


def test_in_another_process(tmp_path: Any) -> None:
    _, optimizer, _ = make()
    torch.save(optimizer, tmp_path / "o.pt")
    run_fresh(f"""
        import torch

        o = torch.load({str(tmp_path / "o.pt")!r}, weights_only=False)
        o.register_step_pre_hook(lambda *_: None)  # numbers of hooks begin anew in a process
        w = o.param_groups[0]["params"][0]
        before = w.detach().clone()
        w.grad = torch.zeros_like(w)
        o.step()
        torch.testing.assert_close(w.detach(), before - {RATE} * ({L1} * before.sign() + 2 * {L2} * before))
    """)


def test_a_training_run_goes_on() -> None:
    """Adam and a rule, pickled half way: as without."""
    found = []
    for resume in (False, True):
        model = linear()
        optimizer = torch.optim.Adam(model.named_parameters(), lr=RATE)
        attach(optimizer, fp.by_path({"*bias": 0.0, "*": L1}), L2, mode="prox")
        for step in range(4):
            optimizer.zero_grad()
            backward(model)
            optimizer.step()
            if resume and step == 1:
                model, optimizer = pickle.loads(pickle.dumps((model, optimizer)))
        found.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *found))
