"""What the steps do at the edges: no gradient, NaN, untouched rows, every layout, GradScaler, clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fused_penalty.torch.optim import SGD, Adam, AdamW
from tests.torch_only.optim.cases import EVERY, ON_EACH, param


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
    with pytest.raises(ValueError, match=r"^max_grad_norm"):
        Adam([a], max_grad_norm=-1.0)
    with pytest.raises(ValueError, match="is unknown for torch"):
        Adam([a], backend="tpu")
    shared = torch.ones(4)
    with pytest.raises(ValueError, match="shares elements"):
        Adam([nn.Parameter(shared[:3]), nn.Parameter(shared[1:])], l1=0.1)
