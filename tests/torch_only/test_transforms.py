"""Autograd, torch.func and torch.compile over the penalty equal the same over the formula in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn

from fused_penalty.torch import penalty, penalty_and_grad, sums
from tests.support import frontends

F64 = torch.float64
Fn = Callable[..., Any]


@pytest.fixture(params=frontends.on_cpu("torch"))
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def leaves(seed: int = 0) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal(shape)) for shape in ((3, 4), (5,))]


def formula(xs: Any, l1: Any, l2: Any) -> Tensor:
    return sum(l1 * x.abs().sum() + l2 * x.square().sum() for x in xs)


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, check_dtype=False)


def scalar(v: float) -> Tensor:
    return torch.tensor(v, dtype=F64)


def test_gradcheck(backend: str) -> None:
    xs = [x.requires_grad_() for x in leaves()]
    strengths = [scalar(0.3).requires_grad_(), scalar(0.0).requires_grad_()]

    def f(a: Tensor, b: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
        return penalty([a, b], l1, l2, backend=backend)

    assert torch.autograd.gradcheck(f, (*xs, *strengths), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (*xs, *strengths), check_fwd_over_rev=True)


def test_gradcheck_with_an_anchor(backend: str) -> None:
    x, a = (v[0].requires_grad_() for v in (leaves(), leaves(1)))

    def f(x: Tensor, a: Tensor) -> Tensor:
        return penalty([x], 0.3, 0.7, anchor=[a], backend=backend)

    assert torch.autograd.gradcheck(f, (x, a), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (x, a))
    same(f(x, a), formula([x - a], 0.3, 0.7))


def test_gradcheck_of_sums(backend: str) -> None:
    def f(a: Tensor, b: Tensor) -> Tensor:
        s = sums([a, b], backend=backend)
        return s.abs.square() + s.square

    xs = [x.requires_grad_() for x in leaves()]
    assert torch.autograd.gradcheck(f, xs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, xs)


FUNC: dict[str, Callable[[Fn], Any]] = {
    "grad": lambda f: torch.func.grad(lambda xs: f(xs, 0.3, 0.7))(leaves()),
    "grad_and_value": lambda f: torch.func.grad_and_value(lambda xs: f(xs, 0.3, 0.7))(leaves()),
    "vjp": lambda f: torch.func.vjp(lambda xs: f(xs, 0.3, 0.7), leaves())[1](scalar(2.0)),
    "jvp": lambda f: torch.func.jvp(lambda xs: f(xs, 0.3, 0.7), (leaves(),), (leaves(1),)),
    "grad_strength": lambda f: torch.func.grad(lambda l1: f(leaves(), l1, 0.7))(scalar(0.0)),
    "hessian": lambda f: torch.func.hessian(lambda x: f([x], 0.3, 0.7))(leaves()[1]),
    "hvp": lambda f: torch.func.jvp(torch.func.grad(lambda x: f([x], 0.3, 0.7)), (leaves()[1],), (leaves(1)[1],)),
    "mixed": lambda f: torch.func.jacfwd(torch.func.grad(lambda x, a: f([x], a, 0.7)), 1)(leaves()[1], scalar(0.0)),
    "vmap": lambda f: torch.func.vmap(lambda x: f([x], 0.3, 0.7))(leaves()[0]),
    "vmap_in_dims": lambda f: torch.func.vmap(lambda x: f([x], 0.3, 0.7), in_dims=1)(leaves()[0]),
    "vmap_strength": lambda f: torch.func.vmap(lambda a: f(leaves(), a, 0.7))(torch.linspace(0, 1, 4, dtype=F64)),
    "vmap_of_grad": lambda f: torch.func.vmap(torch.func.grad(lambda x: f([x], 0.3, 0.7)))(leaves()[0]),
}


@pytest.mark.parametrize("name", FUNC)
def test_func(name: str, backend: str) -> None:
    same(FUNC[name](lambda xs, a, b: penalty(xs, a, b, backend=backend)), FUNC[name](formula))


def test_functional_call(backend: str) -> None:
    model = nn.Linear(3, 2).double()
    params = {k: v.detach() for k, v in model.named_parameters()}

    def loss(p: dict[str, Tensor], f: Fn) -> Tensor:
        out = torch.func.functional_call(model, p, torch.ones(4, 3, dtype=F64))
        return out.square().sum() + f(p)

    ours = torch.func.grad(loss)(params, lambda p: penalty(p, 0.1, 0.2, backend=backend))
    same(ours, torch.func.grad(loss)(params, lambda p: formula(p.values(), 0.1, 0.2)))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


COMPILED: dict[str, Callable[[nn.Module, str], Tensor]] = {
    "module": lambda m, b: penalty(m, 0.1, 0.2, backend=b),
    "list": lambda m, b: penalty(list(m.parameters()), 0.1, 0.2, backend=b),
    "generator": lambda m, b: penalty(m.parameters(), 0.1, 0.0, backend=b),
    "pairs": lambda m, b: penalty(m.named_parameters(), 0.1, 0.2, backend=b),
    "mapping": lambda m, b: penalty(dict(m.named_parameters()), {"0": 0.1, "2": 0.2}, 0.3, backend=b),
    "loss": lambda m, b: m(torch.ones(3, 4)).square().sum() + penalty(m, 0.1, 0.2, backend=b),
    "tensor_strength": lambda m, b: penalty(m, torch.tensor(0.1), torch.tensor(0.2), backend=b),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compile_fullgraph(name: str, backend: str) -> None:
    torch._dynamo.reset()
    run = COMPILED[name]
    model, twin = mlp(), mlp()
    compiled = torch.compile(lambda m: run(m, backend), fullgraph=True)
    for _ in range(2):
        found, expected = compiled(model), run(twin, "reference")
        torch.testing.assert_close(found, expected)
        found.backward()
        expected.backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_compile_of_penalty_and_grad_and_of_func(backend: str) -> None:
    torch._dynamo.reset()
    f = torch.compile(lambda m: penalty_and_grad(m, 0.1, 0.2, backend=backend), fullgraph=True)
    torch.testing.assert_close(f(mlp()), penalty_and_grad(mlp(), 0.1, 0.2, backend="reference"))
    g = torch.compile(lambda xs: torch.func.grad(lambda ys: penalty(ys, 0.1, 0.2, backend=backend))(xs), fullgraph=True)
    same(g(leaves()), torch.func.grad(lambda ys: formula(ys, 0.1, 0.2))(leaves()))


def test_export(backend: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).sum() + penalty(self.inner, 0.1, 0.2, backend=backend)

    model = Model()
    exported = torch.export.export(model, (torch.ones(3, 4),))
    torch.testing.assert_close(exported.module()(torch.ones(3, 4)), model(torch.ones(3, 4)))


def test_custom_ops_are_sound(backend: str) -> None:
    from fused_penalty.torch import ops

    xs = leaves()
    torch.library.opcheck(ops.sums.op, (xs, [], [3, 3], backend))
    torch.library.opcheck(ops.sums.op, ([x.requires_grad_() for x in leaves()], leaves(1), [3, 1], backend))
    torch.library.opcheck(ops.gradients.op, (xs, [], torch.rand(2, 2, dtype=F64), [3, 3], [0, 1], backend))


def test_autocast_and_inference_mode(backend: str) -> None:
    xs = [x.float() for x in leaves()]
    expected = formula(xs, 0.1, 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = penalty(xs, 0.1, 0.2, backend=backend)
        assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    with torch.inference_mode():
        torch.testing.assert_close(penalty(xs, 0.1, 0.2, backend=backend), expected)
        value, grads = penalty_and_grad(xs, 0.1, 0.2, backend=backend)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grads[1], 0.1 * xs[1].sign() + 0.4 * xs[1])


def test_activation_checkpoint(backend: str) -> None:
    from torch.utils.checkpoint import checkpoint

    xs = [x.requires_grad_() for x in leaves()]
    value = checkpoint(lambda *a: penalty(list(a), 0.3, 0.7, backend=backend), *xs, use_reentrant=False)
    same(torch.autograd.grad(value, xs), torch.autograd.grad(formula(xs, 0.3, 0.7), xs))
