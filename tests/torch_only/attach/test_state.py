"""`attach` and the optimizer's state: entries of the groups, a second call, load_state_dict."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

import fused_penalty as fp

torch = pytest.importorskip("torch")

from fused_penalty.torch import attach
from tests.torch_only.attach.steps import L1, L2, RATE, check_a_step, entries, linear, make


class TestEntries:
    def test_strengths_are_entries_of_the_groups(self) -> None:
        _, optimizer, handle = make(l2=0.5, l1=torch.tensor(L1))
        assert entries(optimizer) == [(handle.l1, 0.5)] * 2
        assert optimizer.param_groups[0]["l1"] is handle.l1
        assert [g["l2"] for g in optimizer.state_dict()["param_groups"]] == [0.5, 0.5]
        optimizer.param_groups[1]["l2"] *= 2  # as a scheduler does
        check_a_step(optimizer, l2=(0.5, 1.0))

    def test_a_groups_own_entry_stays(self) -> None:
        _, optimizer, handle = make(l1=0.3)
        handle.remove()
        optimizer.param_groups[0]["l1"] = 0.7
        handle = attach(optimizer, L1, L2)
        assert entries(optimizer) == [(0.7, L2), (L1, L2)]
        handle.l1, handle.l2 = 0.2, 0.4
        assert entries(optimizer) == [(0.7, 0.4), (0.2, 0.4)]
        assert (handle.l1, handle.l2) == (0.2, 0.4)
        check_a_step(optimizer, l1=(0.7, 0.2), l2=(0.4, 0.4))
        handle.l1 = fp.by_leaf(lambda path, leaf: 0.1)
        assert entries(optimizer) == [(0.7, 0.4), (None, 0.4)]
        check_a_step(optimizer, l1=(0.7, 0.1), l2=(0.4, 0.4))
        handle.remove()
        assert entries(optimizer) == [(0.7, None), (None, None)]

    def test_a_bad_strength_is_refused_and_changes_nothing(self) -> None:
        _, optimizer, handle = make()
        with pytest.raises(ValueError, match="l1: the strength -1"):
            handle.l1 = -1
        assert entries(optimizer) == [(L1, L2)] * 2
        assert handle.l1 == L1

    def test_a_group_that_comes_later(self) -> None:
        _, optimizer, handle = make()
        later, own = (torch.nn.Parameter(torch.tensor([1.0])) for _ in range(2))
        optimizer.add_param_group({"params": [later]})
        optimizer.add_param_group({"params": [own], "l1": 0.9})
        check_a_step(optimizer, l1=(L1, L1, L1, 0.9), l2=(L2,) * 4)
        assert entries(optimizer) == [(L1, L2)] * 3 + [(0.9, L2)]
        handle.l1 = 0.4
        assert [g["l1"] for g in optimizer.param_groups] == [0.4, 0.4, 0.4, 0.9]

    def test_no_strength_at_all(self) -> None:
        optimizer = torch.optim.SGD(linear().parameters(), lr=RATE)
        message = r"^l1: neither l1 nor l2 is given.*param_groups\[0\]\['l1'\] = 0\.0"
        for strengths in ((), (0.0,), (0, 0.0)):
            with pytest.raises(ValueError, match=message):
                attach(optimizer, *strengths)
        assert "l1" not in optimizer.param_groups[0]
        optimizer.param_groups[0]["l1"] = 0.0  # one that is to grow
        attach(optimizer).remove()
        attach(optimizer, torch.tensor(0.0))

    def test_a_refused_call_leaves_nothing(self) -> None:
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        keys, group = set(vars(optimizer)), dict(optimizer.param_groups[0])
        for bad in ({"mask": {"no": True}}, {"anchor": [model.weight]}, {"backend": "none"}):
            with pytest.raises(ValueError, match=r"mask|anchor|backend"):
                attach(optimizer, L1, **bad)
        assert set(vars(optimizer)) == keys
        assert optimizer.param_groups[0].keys() == group.keys()

    def test_a_result_of_recorded_operations_stays_with_the_handle(self) -> None:
        """load_state_dict and deepcopy copy the groups, which such a tensor does not allow."""
        learned = torch.tensor(0.1, requires_grad=True)
        _, optimizer, handle = make(l1=learned.exp())
        assert entries(optimizer) == [(None, L2)] * 2
        check_a_step(optimizer, l1=(float(handle.l1.detach()),) * 2)
        optimizer.load_state_dict(optimizer.state_dict())

    def test_a_learned_strength_is_an_entry(self) -> None:
        learned = torch.nn.Parameter(torch.tensor(0.25))
        _, optimizer, _ = make(l1=learned)
        state = optimizer.state_dict()
        with torch.no_grad():
            learned.fill_(0.75)
        optimizer.load_state_dict(copy.deepcopy(state))
        check_a_step(optimizer, l1=(0.75, 0.75))


class TestTwice:
    def test_refused_until_removed(self) -> None:
        _, optimizer, handle = make()
        message = r"^optimizer: it has a penalty already.*Call \.remove\(\) on the first handle"
        with pytest.raises(ValueError, match=message):
            attach(optimizer, 0.9)
        check_a_step(optimizer)
        handle.remove()
        handle.remove()  # idempotent
        with pytest.raises(ValueError, match="neither l1 nor l2"):
            attach(optimizer)  # remove has taken the entries along
        attach(optimizer, 0.9, L2)
        check_a_step(optimizer, l1=(0.9, 0.9))

    def test_an_old_handle_does_not_remove_the_new_one(self) -> None:
        _, optimizer, old = make()
        old.remove()
        attach(optimizer, L1, L2)
        old.remove()
        check_a_step(optimizer)


class TestLoading:
    @pytest.mark.parametrize("mode", ["grad", "prox"])
    def test_a_state_from_before(self, mode: str) -> None:
        """It has no entries: those of `attach` and the groups' own stay."""
        older = torch.optim.SGD([{"params": [torch.zeros(3, 4)]}, {"params": [torch.zeros(3)]}], lr=RATE).state_dict()
        _, optimizer, _ = make(mode=mode, l1=L1, l2=L2)
        optimizer.param_groups[0]["l1"] = 0.7
        optimizer.load_state_dict(older)
        assert entries(optimizer) == [(0.7, L2), (L1, L2)]
        check_a_step(optimizer, mode, l1=(0.7, L1))

    def test_a_state_with_strengths_is_taken(self) -> None:
        _, saved, _ = make(l1=0.7, l2=0.8)
        _, optimizer, handle = make()
        optimizer.load_state_dict(saved.state_dict())
        check_a_step(optimizer, l1=(0.7, 0.7), l2=(0.8, 0.8))
        handle.l1 = 0.2
        check_a_step(optimizer, l1=(0.2, 0.2), l2=(0.8, 0.8))

    @pytest.mark.parametrize("saved", [0.7, torch.tensor(0.7), None])
    def test_a_tensor_takes_the_loaded_value(self, saved: Any) -> None:
        """load_state_dict copies tensors; whoever schedules the strength holds the old one."""
        strength = torch.tensor(L1)
        _, optimizer, handle = make(l1=strength)
        state = optimizer.state_dict()
        for g in state["param_groups"]:
            if saved is None:
                del g["l1"]
            else:
                g["l1"] = saved
        optimizer.load_state_dict(state)
        assert float(strength) == pytest.approx(L1 if saved is None else 0.7)
        assert handle.l1 is strength
        check_a_step(optimizer, l1=(float(strength),) * 2)
        strength.fill_(0.3)
        check_a_step(optimizer, l1=(0.3, 0.3))

    def test_loaded_values_that_differ_stay_as_they_are(self) -> None:
        _, optimizer, _ = make(l1=torch.tensor(L1))
        state = optimizer.state_dict()
        state["param_groups"][0]["l1"] = 0.5
        optimizer.load_state_dict(state)
        check_a_step(optimizer, l1=(0.5, L1))

    def test_through_a_file(self) -> None:
        """With weights_only, as torch.load does by default: the state holds numbers and tensors."""
        _, optimizer, _ = make(l1=torch.tensor(0.7), l2=0.8)
        buffer = io.BytesIO()
        torch.save(optimizer.state_dict(), buffer)
        buffer.seek(0)
        _, other, _ = make()
        other.load_state_dict(torch.load(buffer))
        check_a_step(other, l1=(0.7, 0.7), l2=(0.8, 0.8))
