"""`attach(mode="prox")` after adaptive optimizers, in their metric: training ends at the optimum of loss + penalty."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fused_penalty.torch import attach
from fused_penalty.torch.optim import AdamW
from tests.torch_only.optim.test_optimum import L1, L2, A, Y, lasso

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Adam": (torch.optim.Adam, {"lr": 0.02}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.0}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.02, "amsgrad": True}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.02}),
    "RAdam": (torch.optim.RAdam, {"lr": 0.03}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.004, "alpha": 0.999}),
    "RMSprop with momentum": (torch.optim.RMSprop, {"lr": 0.003, "alpha": 0.999, "momentum": 0.5}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.2}),
    "SGD": (torch.optim.SGD, {"lr": 0.2}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
}


def train(optimizer_of: Any, steps: int = 2500, **attached: Any) -> torch.Tensor:
    a, y = torch.from_numpy(A), torch.from_numpy(Y)
    w = torch.nn.Parameter(torch.full((A.shape[1],), 0.1, dtype=torch.float64))
    optimizer = optimizer_of([w])
    attach(optimizer, L1, L2, mode="prox", **attached)
    for _ in range(steps):
        optimizer.zero_grad()
        (((a @ w - y) ** 2).mean() / 2).backward()
        optimizer.step()
    return w.detach()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimum(name: str) -> None:
    cls, options = OPTIMIZERS[name]
    found, best = train(lambda ps: cls(ps, **options)), torch.from_numpy(lasso())
    assert ((found == 0) == (best == 0)).all()
    assert (found - best).abs().max() < 1e-4


def test_the_euclidean_step_only_by_name() -> None:
    found = train(lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.0), steps=2000, metric="euclidean")
    assert (found == 0).sum() < (lasso() == 0).sum() / 2


def test_as_in_one_pass() -> None:
    """torch's AdamW, then our step in its metric: the same as our AdamW, where both happen in one pass."""
    w, v = (torch.nn.Parameter(torch.linspace(-1, 1, 50, dtype=torch.float64)) for _ in range(2))
    beside = torch.optim.AdamW([w], lr=0.1)
    attach(beside, l1=0.3, l2=0.2, mode="prox")
    inside = AdamW([v], lr=0.1, l1=0.3, l2=0.2)
    for t in range(20):
        w.grad = torch.randn(50, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        v.grad = w.grad.clone()
        beside.step()
        inside.step()
    assert torch.allclose(w, v, rtol=1e-12, atol=1e-14)


def test_untouched_rows_stay() -> None:
    table = torch.nn.Embedding(6, 3)
    optimizer = torch.optim.Adam(table.parameters(), lr=1e-3)
    attach(optimizer, l1=1e-3, mode="prox")
    before = table.weight.detach().clone()
    table(torch.tensor([1, 4])).sum().backward()
    optimizer.step()
    assert (table.weight != before).all(1).tolist() == [False, True, False, False, True, False]


class Lion(torch.optim.Optimizer):
    """Adapts its steps by a sign: no metric."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99)})

    def step(self, closure: Any = None) -> None: ...


class OtherAdam(torch.optim.Optimizer):
    """Adam, as other libraries write it."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for g in self.param_groups:
            for p in g["params"]:
                state = self.state[p]
                state.setdefault("step", 0)
                for name in ("exp_avg", "exp_avg_sq"):
                    state.setdefault(name, torch.zeros_like(p))
                state["step"] += 1
                state["exp_avg"].lerp_(p.grad, 0.1)
                state["exp_avg_sq"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                denominator = (state["exp_avg_sq"] / (1 - 0.999 ** state["step"])).sqrt() + g["eps"]
                p.addcdiv_(state["exp_avg"] / (1 - 0.9 ** state["step"]), denominator, value=-g["lr"])


def test_adam_of_another_library() -> None:
    found, best = train(lambda ps: OtherAdam(ps, lr=0.01)), torch.from_numpy(lasso())
    assert ((found == 0) == (best == 0)).all()


@pytest.mark.parametrize(
    "optimizer_of",
    [Lion, torch.optim.Adamax, torch.optim.Adadelta, lambda ps, lr: torch.optim.RMSprop(ps, lr=lr, centered=True)],
    ids=["Lion", "Adamax", "Adadelta", "centered RMSprop"],
)
def test_an_unknown_metric_is_an_error(optimizer_of: Any) -> None:
    w = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"^metric: the metric in which .* is not known\. Pass metric=\"euclidean\""):
        attach(optimizer_of([w], lr=0.1), l1=0.1, mode="prox")
    attach(optimizer_of([w], lr=0.1), l1=0.1, mode="prox", metric="euclidean")
    attach(optimizer_of([w], lr=0.1), l1=0.1, mode="grad")


def test_bad_metric() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"^metric: 'adam' is unknown"):
        attach(torch.optim.Adam([w]), l1=0.1, mode="prox", metric="adam")  # type: ignore[arg-type]
