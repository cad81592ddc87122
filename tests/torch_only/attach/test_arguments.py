"""`attach`: what closures return, what mode="prox" needs, and which anchors pair."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fused_penalty.torch import attach
from tests.torch_only.attach.steps import L1, RATE, backward, linear


@pytest.mark.parametrize("loss", [None, 2.0, 3, True, {"loss": 1.0}, "text"], ids=str)
def test_what_a_closure_may_return(loss: Any) -> None:
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.SGD([w], lr=RATE)
    handle = attach(optimizer, l1=1.0)

    def closure() -> Any:
        w.grad = torch.zeros(2)
        return loss

    found = optimizer.step(closure)
    assert float(handle.penalty) == 3.0
    torch.testing.assert_close(w.detach(), torch.tensor([1.0 - RATE, -2.0 + RATE]))
    if isinstance(loss, float):
        assert (type(found), found) == (float, 5.0)
    else:
        assert found is loss


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_closure_may_return_a_tensor(dtype: str) -> None:
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.SGD([w], lr=RATE)
    attach(optimizer, l1=1.0)
    w.grad = torch.zeros(2)
    found = optimizer.step(lambda: torch.tensor(0.5, dtype=getattr(torch, dtype)))
    torch.testing.assert_close(found, torch.tensor(3.5, dtype=getattr(torch, dtype)))


def test_a_step_with_another_argument_than_a_closure() -> None:
    class Weighted(torch.optim.SGD):
        def step(self, weight: float) -> Any:
            for g in self.param_groups:
                for p in g["params"]:
                    p.data.sub_(weight * p.grad)

    w = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = Weighted([w], lr=RATE)
    attach(optimizer, l2=0.5)
    w.grad = torch.tensor([1.0])
    optimizer.step(0.5)
    assert w.item() == 0.0


def test_prox_without_a_learning_rate() -> None:
    """Hugging Face's Adafactor has lr=None where it makes its own."""
    model = linear()
    optimizer = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=RATE)
    optimizer.param_groups[1]["lr"] = None
    message = r'^optimizer: parameter group 1 has no learning rate.*\(lr=\), or use mode="grad"'
    with pytest.raises(ValueError, match=message):
        attach(optimizer, L1, mode="prox")
    assert "l1" not in optimizer.param_groups[0]
    attach(optimizer, L1).remove()
    optimizer.param_groups[1]["lr"] = RATE
    attach(optimizer, L1, mode="prox")
    del optimizer.param_groups[1]["lr"]
    backward(model)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert all(map(torch.equal, model.parameters(), before))  # refused before anything is written


class TestAnchor:
    """Parameters without names beside an anchor with names: never by position."""

    def groups(self, model: Any) -> list[dict[str, Any]]:
        weights = [p for p in model.parameters() if p.ndim == 2]
        return [{"params": weights}, {"params": [p for p in model.parameters() if p.ndim == 1]}]

    @pytest.mark.parametrize("kind", ["module", "state_dict", "pairs", "generator"])
    def test_refused(self, kind: str) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        message = r"^anchor: it has names, .*Build the optimizer from model\.named_parameters\(\)"
        for params in (model.parameters(), self.groups(model)):
            optimizer = torch.optim.SGD(params, lr=RATE)
            anchors = {
                "module": model, "state_dict": model.state_dict(), "pairs": list(model.named_parameters()),
                "generator": model.named_parameters(),
            }  # fmt: skip
            with pytest.raises(ValueError, match=message):
                attach(optimizer, l2=1.0, anchor=anchors[kind])
            assert "fused_penalty" not in vars(optimizer)

    @pytest.mark.parametrize("by", ["names", "position", "generator", "one"])
    def test_paired(self, by: str) -> None:
        """The penalty towards the model's own copy is 0 and pulls nothing, in the second step, too."""
        model, copy = (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)) for _ in range(2))
        copy.load_state_dict(model.state_dict())
        params, anchor = {
            "names": (model.named_parameters(), copy),
            "position": (model.parameters(), list(copy.parameters())),
            "generator": (model.parameters(), copy.parameters()),
            "one": ([model[0].weight], {"w": copy[0].weight}),
        }[by]
        optimizer = torch.optim.SGD(params, lr=RATE)
        handle = attach(optimizer, l2=1.0, anchor=anchor)
        for _ in range(2):
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            optimizer.step()
            assert handle.penalty == 0
        assert all(map(torch.equal, model.parameters(), copy.parameters()))
