"""What users of PyTorch hand over: modules, pairs, mappings, ties, odd strides, frozen parameters."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn

import fused_penalty as fp
from fused_penalty.torch import penalty, penalty_and_grad, prox_, sums
from tests.support import frontends


@pytest.fixture(params=frontends.on_cpu("torch"))
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def value_of(x: Tensor) -> float:
    return float(0.1 * x.double().abs().sum() + 0.2 * x.double().square().sum())


def number(value: Tensor) -> float:
    return float(value.detach())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.alias = nn.Parameter(self.embed.weight.data)  # another Parameter over the same memory
        self.transposed = nn.Parameter(self.embed.weight.data.t())  # the same elements in another order
        self.register_buffer("running", torch.ones(100))


def test_module_counts_one_memory_once_and_no_buffers(backend: str) -> None:
    model = Tied()
    s = sums(model, backend=backend)
    assert s.paths == ("alias",)  # the first of named_parameters()
    once = value_of(model.embed.weight.detach())
    assert number(penalty(model, 0.1, 0.2, backend=backend)) == pytest.approx(once, rel=1e-6)
    named = dict(model.named_parameters(remove_duplicate=False))
    assert number(penalty(named, 0.1, 0.2, backend=backend)) == pytest.approx(once, rel=1e-6)
    listed = list(named.values())
    assert number(penalty(listed, 0.1, 0.2, backend=backend)) == pytest.approx(4 * once, rel=1e-6)
    pairs = list(named.items())  # an explicit list counts what it is given
    assert number(penalty(pairs, 0.1, 0.2, backend=backend)) == pytest.approx(4 * once, rel=1e-6)


VIEWS: dict[str, tuple[Any, bool]] = {  # of w, and whether they are one memory with it
    "itself": (lambda w: w, True),
    "transposed": (lambda w: w.t(), True),
    "flat": (lambda w: w.view(-1), True),
    "split": (lambda w: w.view(2, 2, 6), True),
    "permuted": (lambda w: w.view(2, 2, 6).permute(2, 0, 1), True),
    "unsqueezed": (lambda w: w[None, :, None], True),
    "detached": (lambda w: w.detach(), True),
    "negated": (lambda w: torch._neg_view(w), True),
    "part": (lambda w: w[:2], False),
    "later_part": (lambda w: w[1:], False),
    "column": (lambda w: w[:, :1], False),
    "expanded": (lambda w: w.expand(3, 4, 6), False),
    "of_other_bits": (lambda w: w.view(torch.float16), False),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_the_same_elements_counts_once(name: str, backend: str) -> None:
    w = torch.arange(1.0, 25.0).reshape(4, 6)
    make, tied = VIEWS[name]
    view = make(w)
    for mapping in ({"w": w, "v": view}, {"deep": {"v": view}, "w": w}):
        assert len(sums(mapping, backend=backend).paths) == (1 if tied else 2)
        expected = number(w.sum()) if tied else number(w.sum()) + float(view.double().abs().sum())
        assert number(penalty(mapping, 1.0, backend=backend)) == pytest.approx(expected, rel=1e-6)
    if tied:
        prox_({"w": w, "v": view}, 0.5, backend=backend)
        torch.testing.assert_close(w, torch.arange(0.5, 24.0).reshape(4, 6))
    else:  # what shares only some elements can be read twice, and not written twice
        with pytest.raises(ValueError, match=r"shares elements with|holds an element twice"):
            prox_({"w": w, "v": view}, 0.5, backend=backend)


def test_gaps_are_compared_too(backend: str) -> None:
    whole = torch.ones(6, 8)
    w = whole[:, ::2]
    tied = {"w": w, "v": w.t(), "flat": w.unflatten(0, (2, 3))}
    assert number(penalty(tied, 1.0, backend=backend)) == 24.0
    other = {"w": w, "v": whole[:3].view(-1)[:24].view(4, 6)}  # the same address and size
    assert number(penalty(other, 1.0, backend=backend)) == 48.0


def test_every_form_of_params_gives_the_same(backend: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    forms: list[Any] = [
        model, list(model.parameters()), model.parameters(), model.named_parameters(),
        dict(model.named_parameters()), {"a": list(model[0].parameters()), "b": dict(model[1].named_parameters())},
    ]  # fmt: skip
    expected = sum(value_of(p.detach()) for p in model.parameters())
    for form in forms:
        assert number(penalty(form, 0.1, 0.2, backend=backend)) == pytest.approx(expected, rel=1e-6)
    assert number(penalty(model[0].bias, 0.1, 0.2, backend=backend)) == pytest.approx(value_of(model[0].bias.detach()))
    assert isinstance(penalty_and_grad(model, 0.1, backend=backend)[1], dict)
    assert isinstance(penalty_and_grad(model.named_parameters(), 0.1, backend=backend)[1], dict)
    assert isinstance(penalty_and_grad(model.parameters(), 0.1, backend=backend)[1], list)


LAYOUTS = {
    "transposed": lambda: torch.randn(6, 5).t(),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "permuted": lambda: torch.randn(2, 3, 4).permute(2, 0, 1),
    "gaps": lambda: torch.randn(8, 6)[:, ::2],
    "column": lambda: torch.randn(8, 6)[:, 3],
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "overlapping": lambda: torch.randn(10).as_strided((4, 4), (2, 1)),
    "offset": lambda: torch.randn(101)[1:],
    "lazy_negation": lambda: torch.randn(7, dtype=torch.complex64).conj().imag,
    "lazy_negation_of_one": lambda: torch.randn((), dtype=torch.complex64).conj().imag,
    "size_one_strides": lambda: torch.randn(1, 5, 1).as_strided((1, 5, 1), (77, 1, 3)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_strides(name: str, backend: str) -> None:
    torch.manual_seed(0)
    x = LAYOUTS[name]()
    expected = 0.1 * x.sign() + 0.4 * x
    value, (grad,) = penalty_and_grad([x], 0.1, 0.2, backend=backend)
    assert float(value) == pytest.approx(value_of(x), rel=1e-6)
    torch.testing.assert_close(grad, expected)
    leaf = x.detach().requires_grad_()
    penalty([leaf], 0.1, 0.2, backend=backend).backward()
    torch.testing.assert_close(leaf.grad, expected)
    anchor = torch.randn(x.shape)  # its elements are ordered otherwise than those of x
    value, (grad,) = penalty_and_grad([x], 0.1, 0.2, anchor=[anchor], backend=backend)
    torch.testing.assert_close(grad, 0.1 * (x - anchor).sign() + 0.4 * (x - anchor))


@pytest.mark.parametrize("name", ["transposed", "channels_last", "permuted", "offset", "size_one_strides"])
def test_dense_memory_is_not_copied(name: str) -> None:
    from fused_penalty.torch.backends import native as _torch_native

    x = LAYOUTS[name]()
    held = _torch_native.dense([x], []).x
    assert held.tensors[0] is x
    assert x.data_ptr() == held.read.addresses[0]
    assert penalty_and_grad([x], 0.1, 0.2, backend="cpu")[1][0].stride() == torch.empty_like(x).stride()


def test_frozen_parameters_count_but_get_no_gradient(backend: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    everything = sum(value_of(p.detach()) for p in model.parameters())
    value = penalty(model, 0.1, 0.2, backend=backend)
    assert float(value.detach()) == pytest.approx(everything, rel=1e-6)
    value.backward()
    assert model[0].weight.grad is None
    weight = model[1].weight.detach()
    torch.testing.assert_close(model[1].weight.grad, 0.1 * weight.sign() + 0.4 * weight)
    value, grads = penalty_and_grad(model, 0.1, 0.2, backend=backend)
    assert float(value) == pytest.approx(everything, rel=1e-6)
    assert [k for k, g in grads.items() if g is None] == ["0.weight", "0.bias"]
    torch.testing.assert_close(grads["1.weight"], model[1].weight.grad)


def test_masked_leaves_get_none(backend: str) -> None:
    params = {"w": torch.ones(3), "steps": torch.tensor(5), "b": torch.ones(2)}
    mask = {"w": True, "steps": False, "b": False}
    value, grads = penalty_and_grad(params, 1.0, mask=mask, backend=backend)
    assert float(value) == 3.0
    assert grads["steps"] is None
    assert grads["b"] is None
    assert sums(params, mask=lambda p: mask, backend=backend).paths == ("w",)


def test_prefix_trees_of_names(backend: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    by_part = penalty(model, {"0": 0.1, "1.weight": 0.2, "1.bias": 0.0}, backend=backend)
    expected = 0.1 * sum(number(p.abs().sum()) for p in model[0].parameters()) + 0.2 * number(
        model[1].weight.abs().sum()
    )
    assert number(by_part) == pytest.approx(expected, rel=1e-6)
    rule = fp.by_path({"0.*": 0.1, "1.weight": 0.2, "*": 0.0})
    torch.testing.assert_close(penalty(model, rule, backend=backend), by_part)
    nested = {"0": {"weight": 0.1, "bias": 0.1}, "1": {"weight": 0.2, "bias": 0.0}}
    torch.testing.assert_close(penalty(model, nested, backend=backend), by_part)


def test_strengths_may_be_learned(backend: str) -> None:
    x = torch.tensor([1.0, -2.0])
    l1, l2 = torch.tensor(0.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    penalty([x], l1, l2, backend=backend).backward()
    assert (float(l1.grad), float(l2.grad)) == (3.0, 5.0)
    each = [torch.tensor(0.1, requires_grad=True), torch.tensor(0.2, requires_grad=True)]
    penalty([x, 2 * x], each, backend=backend).backward()
    assert [float(v.grad) for v in each] == [3.0, 6.0]
    infinite = torch.tensor([float("inf")])
    zero = torch.tensor(0.0, requires_grad=True)
    value = penalty([infinite], zero, backend=backend)
    assert number(value) == 0.0
    value.backward()
    assert float(zero.grad) == float("inf")


def test_gradients_are_fresh_and_inputs_untouched(backend: str) -> None:
    x = torch.randn(1000)
    before = x.clone()
    _, (grad,) = penalty_and_grad([x], 0.1, 0.2, backend=backend)
    grad.zero_()
    torch.testing.assert_close(x, before)
    assert x._version == 0
