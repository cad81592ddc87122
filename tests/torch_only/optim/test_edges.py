"""What the steps do at the edges: no gradient, NaN, untouched rows, every layout, GradScaler, hooks, several groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fused_penalty
import fused_penalty.torch as fp
from fused_penalty.torch.optim import SGD, Adam, AdamW

BACKENDS = ["cpu", "reference"]
KINDS: list[tuple[Any, dict[str, Any]]] = [
    (SGD, {}), (SGD, {"momentum": 0.9}), (Adam, {}), (AdamW, {"amsgrad": True}),
]  # fmt: skip
EVERY = pytest.mark.parametrize(("cls", "options"), KINDS, ids=["SGD", "momentum", "Adam", "amsgrad"])
ON_EACH = pytest.mark.parametrize("backend", BACKENDS)


def param(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    p = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype))
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 100), dtype=dtype)
    return p


@EVERY
@ON_EACH
def test_without_gradient(cls: Any, options: dict[str, Any], backend: str) -> None:
    """Such a parameter counts, does not move, and gets no state."""
    a, b = param(4), param(5, seed=1)
    b.grad = None
    before = b.detach().clone()
    optimizer = cls([a, b], lr=0.1, l1=0.5, backend=backend, **options)
    value = 0.5 * float(a.detach().abs().sum() + b.detach().abs().sum())
    optimizer.step()
    assert torch.equal(b, before)
    assert b not in optimizer.state
    assert float(optimizer.penalty) == pytest.approx(value, rel=1e-6)
    b.grad = torch.ones(5)  # it joins later, as where layers are unfrozen
    optimizer.step()
    assert not torch.equal(b, before)
    if cls is not SGD:
        assert (float(optimizer.state[a]["step"]), float(optimizer.state[b]["step"])) == (2, 1)


@EVERY
@ON_EACH
def test_no_parameter_has_a_gradient(cls: Any, options: dict[str, Any], backend: str) -> None:
    a = param(4)
    a.grad = None
    before = a.detach().clone()
    optimizer = cls([a], lr=0.1, l1=0.5, backend=backend, **options)
    optimizer.step()
    assert torch.equal(a, before)


@ON_EACH
@pytest.mark.parametrize("cls", [Adam, AdamW])
def test_untouched_rows_of_an_embedding_stay(cls: Any, backend: str) -> None:
    """v = 0: D is eps alone there, and lr·l1 / eps would set whole rows to zero before they were ever used."""
    table = nn.Embedding(6, 3)
    optimizer = cls(table.parameters(), lr=1e-3, l1=1e-3, l2=1e-3, weight_decay=0.0, backend=backend)
    before = table.weight.detach().clone()
    table(torch.tensor([1, 4])).sum().backward()
    optimizer.step()
    moved = (table.weight != before).all(1)
    assert moved.tolist() == [False, True, False, False, True, False]


@EVERY
@ON_EACH
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite(cls: Any, options: dict[str, Any], backend: str, bad: float) -> None:
    """It is not swallowed, it stays where it is, and it is counted."""
    a = param(50)
    assert a.grad is not None
    a.grad[7] = bad
    optimizer = cls([a], lr=0.1, l1=0.01, backend=backend, **options)
    optimizer.step()
    assert not a.detach()[7].isfinite()
    assert a.detach()[[0, 6, 8, 49]].isfinite().all()
    assert int(optimizer.summary.nonfinite) == 1


@EVERY
@ON_EACH
def test_an_overflow_that_grad_scaler_found(cls: Any, options: dict[str, Any], backend: str) -> None:
    """Nothing changes, and the step is not counted."""
    a = param(50)
    optimizer = cls([a], lr=0.1, l1=0.01, backend=backend, **options)
    optimizer.step()
    a.grad = torch.full((50,), float("inf"))
    before = a.detach().clone(), {k: v.clone() for k, v in optimizer.state[a].items()}
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(a, before[0])
    assert all(torch.equal(v, before[1][k]) for k, v in optimizer.state[a].items())
    a.grad, optimizer.found_inf = torch.ones(50), torch.tensor(0.0)
    optimizer.step()
    assert not torch.equal(a, before[0])


@EVERY
def test_grad_scaler(cls: Any, options: dict[str, Any]) -> None:
    """The whole protocol: the step unscales by itself, and the result is that without a scaler."""
    a, b = param(50), param(50)
    scaled, plain = (cls([p], lr=0.1, l1=0.01, **options) for p in (a, b))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for _ in range(3):
        for p, optimizer in ((a, scaled), (b, plain)):
            optimizer.zero_grad()
            loss = (p * p).sum()
            (scaler.scale(loss) if p is a else loss).backward()
        scaler.step(scaled)
        scaler.update()
        plain.step()
        assert torch.equal(a, b)


def layouts() -> dict[str, nn.Parameter]:
    base = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    return {
        "transposed": nn.Parameter(base.t()),
        "sliced": nn.Parameter(base[:, ::2]),
        "channels_last": nn.Parameter(torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)),
        "negated": nn.Parameter(torch._neg_view(base)),
        "0-d": nn.Parameter(torch.tensor(0.5)),
        "empty": nn.Parameter(torch.empty(0, 3)),
    }


@EVERY
@pytest.mark.parametrize("name", layouts())
def test_every_layout(cls: Any, options: dict[str, Any], name: str) -> None:
    odd = layouts()[name]
    plain = nn.Parameter(odd.detach().clone(memory_format=torch.contiguous_format))
    optimizers = [cls([p], lr=0.1, l1=0.05, l2=0.1, **options) for p in (odd, plain)]
    for t in range(3):
        gradient = torch.randn(odd.shape, generator=torch.Generator().manual_seed(t))
        odd.grad, plain.grad = gradient.clone(), gradient.clone()
        if t == 1 and gradient.dim() == 2:  # a gradient in another order than its parameter
            odd.grad = torch.empty_like(gradient.t()).t().copy_(gradient)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(odd.detach(), plain.detach())


@ON_EACH
def test_sparse_gradients_are_refused(backend: str) -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = AdamW(table.parameters(), l1=0.1, backend=backend)
    table(torch.tensor([1])).sum().backward()
    before = table.weight.detach().clone()
    with pytest.raises(TypeError, match=r"^params at '0': its gradient is sparse .*SparseAdam"):
        optimizer.step()
    assert torch.equal(table.weight, before)
    assert not optimizer.state


@ON_EACH
def test_groups_have_options_of_their_own(backend: str) -> None:
    a, b, c = param(40), param(30, seed=1), param(20, seed=2)
    alone = [nn.Parameter(p.detach().clone()) for p in (a, b, c)]
    own = [{"lr": 0.1, "l1": 0.5}, {"lr": 0.02, "l2": 1.0, "amsgrad": True}, {"lr": 0.3, "maximize": True}]
    together = Adam([{"params": [p], **o} for p, o in zip((a, b, c), own, strict=True)], l1=0.25, backend=backend)
    apart = [Adam([p], backend=backend, **{"l1": 0.25, **o}) for p, o in zip(alone, own, strict=True)]
    for t in range(3):
        for p, q in zip((a, b, c), alone, strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
            q.grad = p.grad.clone()
        together.step()
        for optimizer in apart:
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip((a, b, c), alone, strict=True))
    assert float(together.penalty) == pytest.approx(sum(float(o.penalty) for o in apart), rel=1e-6)


def test_a_scheduler_changes_strength_and_rate() -> None:
    a = param(40)
    optimizer = SGD([a], lr=1.0, l1=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    a.grad = torch.zeros(40)
    optimizer.step()
    scheduler.step()
    optimizer.param_groups[0]["l1"] = 0.25
    before = a.detach().clone()
    optimizer.step()
    assert torch.allclose(a.detach(), torch.nn.functional.softshrink(before, 0.125))


def test_tensors_as_rate_and_strength() -> None:
    a, b = param(40), param(40)
    l1 = torch.tensor(0.5)
    moving = AdamW([a], lr=torch.tensor(0.1), l1=l1)
    fixed = AdamW([b], lr=0.1, l1=0.5)
    for strength in (0.5, 0.25):
        l1.fill_(strength)
        fixed.param_groups[0]["l1"] = strength
        moving.step()
        fixed.step()
        assert torch.allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_a_bad_device_scalar_gives_nan(bad: float) -> None:
    """It is not read on the host, so it cannot be refused; but it must not give plausible numbers."""
    a = param(10)
    optimizer = Adam([a], lr=0.1, l1=torch.tensor(bad))
    optimizer.step()
    assert a.detach().isnan().all()


def test_mask_and_names() -> None:
    model = nn.Linear(4, 3)
    optimizer = Adam(model.named_parameters(), lr=0.1, l1=0.5, mask={"weight": True, "bias": False})
    plain = nn.Linear(4, 3)
    plain.load_state_dict(model.state_dict())
    its = torch.optim.Adam(plain.parameters(), lr=0.1)
    value = 0.5 * float(model.weight.detach().abs().sum())
    for m, o in ((model, optimizer), (plain, its)):
        m(torch.ones(2, 4)).square().sum().backward()
        o.step()
    assert torch.allclose(model.bias, plain.bias, atol=1e-7)
    assert not torch.allclose(model.weight, plain.weight, atol=1e-3)
    assert float(optimizer.penalty) == pytest.approx(value, rel=1e-6)


def test_rules_by_path() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    rule = fused_penalty.by_path({"0.*": 1.0, "*": 0.0})
    optimizer = SGD(model.named_parameters(), lr=0.1, l1=rule)
    model(torch.ones(1, 4)).sum().backward()
    with torch.no_grad():
        value = float(fp.penalty(model, l1=rule))
    optimizer.step()
    assert float(optimizer.penalty) == pytest.approx(value, rel=1e-6)


def test_an_anchor_beside_a_mask() -> None:
    """What the mask leaves out is neither pulled to the anchor nor to zero."""
    a, b = param(6), param(5, seed=1)
    start = b.detach().clone()
    a.grad, b.grad = torch.zeros(6), torch.zeros(5)
    optimizer = SGD([a, b], lr=1.0, l1=100.0, mask=[True, False], anchor=[torch.ones(6), torch.zeros(5)])
    optimizer.step()
    assert torch.equal(a, torch.ones(6))
    assert torch.equal(b, start)


def test_closure_and_hooks() -> None:
    a = param(5)
    optimizer = Adam([a], lr=0.1, l1=0.01)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (a * a).sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss is not None
    assert loss.requires_grad
    assert seen == ["before", "after"]


def test_autograd_sees_the_write() -> None:
    a = param(5)
    loss = (a * a).sum()
    SGD([a], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_group_added_later() -> None:
    a, b = param(5), param(4, seed=1)
    optimizer = Adam([a], lr=0.1, l1=0.5)
    optimizer.step()
    optimizer.add_param_group({"params": [b], "lr": 0.01})
    optimizer.step()
    assert optimizer.param_groups[1]["l1"] == 0.5
    assert (float(optimizer.state[a]["step"]), float(optimizer.state[b]["step"])) == (2, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_float32_state_beside_16_bits(dtype: torch.dtype) -> None:
    """A state that somebody keeps in float32 is used as it is."""
    a = param(100, dtype=dtype)
    wide = nn.Parameter(a.detach().float())
    optimizer, exact = Adam([a], lr=0.1), Adam([wide], lr=0.1)
    optimizer.state[a].update(exp_avg=torch.zeros(100), exp_avg_sq=torch.zeros(100))
    assert a.grad is not None
    wide.grad = a.grad.float()
    optimizer.step()
    exact.step()
    assert optimizer.state[a]["exp_avg_sq"].dtype == torch.float32
    assert torch.equal(optimizer.state[a]["exp_avg_sq"], exact.state[wide]["exp_avg_sq"])
    assert torch.equal(a.detach(), wide.detach().to(dtype))


@EVERY
@ON_EACH
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_in_the_step(cls: Any, options: dict[str, Any], backend: str, limit: float) -> None:
    """As `clip_grad_norm_` before it, but the gradients themselves stay as they are."""
    inside, beside = [param(50), param(20, seed=1)], [param(50), param(20, seed=1)]
    given = [p.grad.clone() for p in inside if p.grad is not None]
    one = cls(inside, lr=0.1, l1=0.01, max_grad_norm=limit, backend=backend, **options)
    two = cls(beside, lr=0.1, l1=0.01, backend=backend, **options)
    norm = torch.nn.utils.clip_grad_norm_(beside, limit)
    one.step()
    two.step()
    for p, q, g in zip(inside, beside, given, strict=True):
        assert torch.allclose(p, q, rtol=1e-6, atol=1e-7)
        assert p.grad is not None
        assert torch.equal(p.grad, g)
    assert float(one.summary.grad_norm) == pytest.approx(float(norm), rel=1e-6)
    one.step(max_grad_norm=torch.tensor(0.25))
    torch.nn.utils.clip_grad_norm_(beside, 0.25)
    if limit > 1:
        two.step()
        assert all(torch.allclose(p, q, rtol=1e-6, atol=1e-7) for p, q in zip(inside, beside, strict=True))


def test_bad_arguments() -> None:
    a = param(3)
    with pytest.raises(ValueError, match=r"^penalty: 'lasso' is unknown\. Use one of 'prox', 'grad', 'decoupled'"):
        SGD([a], penalty="lasso")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^l1"):
        SGD([a], l1=-1.0)
    with pytest.raises(ValueError, match=r"^differentiable"):
        Adam([a], differentiable=True)
    with pytest.raises(ValueError, match=r"^max_norm"):
        Adam([a], max_grad_norm=-1.0)
    with pytest.raises(ValueError, match="is unknown for torch"):
        Adam([a], backend="tpu")
    shared = torch.ones(4)
    with pytest.raises(ValueError, match="shares elements"):
        Adam([nn.Parameter(shared[:3]), nn.Parameter(shared[1:])], l1=0.1)
