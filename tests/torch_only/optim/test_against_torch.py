"""Without a penalty each optimizer is torch.optim's: the same steps to rounding, the same state, loadable both ways."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch

import fused_penalty.torch.optim as ours
from tests.torch_only.optim.cases import BACKENDS

SGD_FLAGS = [
    {"momentum": m, "dampening": d, "nesterov": n, "maximize": x, "weight_decay": w}
    for m, d, n, x, w in itertools.product((0.0, 0.9), (0.0, 0.3), (False, True), (False, True), (0.0, 0.1))
    if not n or (m and not d)
]
ADAM_FLAGS = [
    {"amsgrad": a, "maximize": x, "weight_decay": w, "capturable": c}
    for a, x, w, c in itertools.product((False, True), (False, True), (0.0, 0.1), (False, True))
]
CASES = [("SGD", f) for f in SGD_FLAGS] + [(name, f) for name in ("Adam", "AdamW") for f in ADAM_FLAGS]


class Pair:
    """The same parameters under ours and torch's, which are given the same gradients."""

    def __init__(
        self, name: str, flags: dict[str, Any], backend: str | None = None, dtype: Any = torch.float64
    ) -> None:
        shapes = [(7, 5), (64,), (), (3, 3, 2), (0,)]
        generator = torch.Generator().manual_seed(0)
        self.mine = [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]
        self.its = [torch.nn.Parameter(p.detach().clone()) for p in self.mine]
        self.a = getattr(ours, name)(self.mine, lr=0.01, backend=backend, **flags)
        self.b = getattr(torch.optim, name)(self.its, lr=0.01, foreach=False, **flags)
        self.generator = generator

    def step(self, times: int) -> None:
        for _ in range(times):
            for p, q in zip(self.mine, self.its, strict=True):
                p.grad = torch.randn(p.shape, generator=self.generator, dtype=p.dtype)
                q.grad = p.grad.clone()
            self.a.step()
            self.b.step()

    def difference(self) -> float:
        """The largest, in units of the last place of a weight of size 1, or of the largest one."""
        unit = torch.finfo(self.mine[0].dtype).eps
        pairs = [(p.detach(), q.detach()) for p, q in zip(self.mine, self.its, strict=True) if p.numel()]
        return max(float((p - q).abs().max() / (q.abs().max().clamp(min=1) * unit)) for p, q in pairs)


# capturable on the CPU is allowed where torch compiles; the check at each step is for accelerators
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "flags"), CASES, ids=str)
def test_the_same_steps(name: str, flags: dict[str, Any], backend: str) -> None:
    flags = dict(flags)
    capturable = flags.pop("capturable", False)
    pair = Pair(name, flags, backend)
    if capturable:
        pair.a.param_groups[0]["capturable"] = True  # torch's own would refuse a CPU
    pair.step(100)
    assert pair.difference() < 20  # ulp after 100 steps


@pytest.mark.parametrize(("name", "flags"), CASES[::5], ids=str)
def test_float32_after_one_step(name: str, flags: dict[str, Any]) -> None:
    flags = {k: v for k, v in flags.items() if k != "capturable"}
    pair = Pair(name, flags, dtype=torch.float32)
    pair.step(1)
    assert pair.difference() <= 1


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_state_dicts_load_both_ways(name: str) -> None:
    flags: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {"amsgrad": True}
    pair = Pair(name, flags)
    pair.step(3)
    mine, its = pair.a.state_dict(), pair.b.state_dict()
    assert {k: set(v) for k, v in mine["state"].items()} == {k: set(v) for k, v in its["state"].items()}
    for entry in ("step",) if name != "SGD" else ():
        assert mine["state"][0][entry].dtype == torch.float32
        assert mine["state"][0][entry].shape == ()
    pair.a.load_state_dict(copy.deepcopy(its))
    pair.b.load_state_dict(copy.deepcopy(mine))
    pair.step(3)
    assert pair.difference() < 5
    pair.a.load_state_dict(pickle.loads(pickle.dumps(pair.a.state_dict())))
    pair.step(1)
    assert pair.difference() < 5


def test_what_a_loaded_state_lacks_is_kept() -> None:
    """A checkpoint of torch.optim has no strengths."""
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ours.AdamW([w], lr=0.1, l1=0.25, l2=0.5)
    plain = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=0.3)
    optimizer.load_state_dict(plain.state_dict())
    group = optimizer.param_groups[0]
    assert (group["l1"], group["l2"], group["lr"]) == (0.25, 0.5, 0.3)
    saved = ours.AdamW([torch.nn.Parameter(torch.ones(3))], l1=0.75).state_dict()
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["l1"] == 0.75


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_keep_the_penalty(how: Any) -> None:
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = ours.Adam([w], lr=0.1, l1=0.25, anchor=[torch.tensor([1.0, 1.0])])
    w.grad = torch.ones(2)
    optimizer.step()
    other = how(optimizer)
    copied = other.param_groups[0]["params"][0]
    assert copied is not w
    w.grad, copied.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    other.step()
    assert torch.equal(w, copied)
    assert torch.equal(optimizer.penalty, other.penalty)
    assert other.state[copied]["step"] == 2


def test_is_an_instance() -> None:
    """Schedulers, trainers and hooks look for torch's classes."""
    w = torch.nn.Parameter(torch.ones(2))
    for name in ("SGD", "Adam", "AdamW"):
        assert isinstance(getattr(ours, name)([w], lr=0.1), getattr(torch.optim, name))
