"""vmap over the verbs that have no derivative, and writes in place under torch.func: the result of the rows called one
by one, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor

from fused_penalty.torch import add_grad_, penalty_and_grad, prox_, regularize_, stats
from tests.support import frontends
from tests.torch_only.test_transforms import leaves, same

F64 = torch.float64
Fn = Callable[..., Any]


@pytest.fixture(params=frontends.on_cpu("torch"))
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def same_rows(found: Any, expected: list[Any]) -> None:
    """A mapped result equals those of the rows."""
    for i, row in enumerate(expected):
        torch.testing.assert_close(torch.utils._pytree.tree_map(lambda t, i=i: t[i], found), row, rtol=0, atol=0)


READS: dict[str, Callable[[Any, str], Any]] = {
    "stats": lambda xs, b: stats(xs, backend=b)[:5],
    "penalty_and_grad": lambda xs, b: penalty_and_grad(xs, 0.3, 0.7, backend=b),
    "strength of a row": lambda xs, b: penalty_and_grad(xs, xs[1].flatten()[0].abs(), 0.7, backend=b),
    "anchored": lambda xs, b: penalty_and_grad(xs[:1], 0.3, 0.7, anchor=xs[1:], backend=b),
    "anchored stats": lambda xs, b: stats(xs[:1], anchor=xs[1:], backend=b)[:5],
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vmap_of_what_has_no_derivative(name: str, dtype: torch.dtype, backend: str) -> None:
    """The bits of the rows, each called alone."""
    x, y = (torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(2))
    x[0, 0] = 0
    read = READS[name]
    same_rows(
        torch.vmap(lambda *t: read(list(t), backend))(x, y), [read([*t], backend) for t in zip(x, y, strict=True)]
    )
    turned = torch.vmap(lambda *t: read(list(t), backend), in_dims=(1, 0))(x.transpose(0, 1), y)
    same_rows(turned, [read([*t], backend) for t in zip(x, y, strict=True)])
    if "row" not in name:
        mixed = torch.vmap(lambda *t: read(list(t), backend), in_dims=(0, None))(x, y[1])
        same_rows(mixed, [read([row, y[1]], backend) for row in x])
    nested = torch.vmap(torch.vmap(lambda *t: read(list(t), backend)))(x, y)
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        rows = [read([*t], backend) for t in zip(a, b, strict=True)]
        same_rows(torch.utils._pytree.tree_map(lambda t, i=i: t[i], nested), rows)


def test_vmap_over_a_strength(backend: str) -> None:
    l1 = torch.linspace(0, 1, 4, dtype=F64)
    found = torch.vmap(lambda a: penalty_and_grad(leaves(), a, 0.7, backend=backend))(l1)
    same_rows(found, [penalty_and_grad(leaves(), a, 0.7, backend=backend) for a in l1])


WRITES: dict[str, Callable[..., Tensor]] = {
    "prox_": lambda x, a, b: prox_([x], a, 0.2, step=0.5, backend=b),
    "prox_ anchored": lambda x, a, b: prox_({"w": x}, {"w": a}, anchor={"w": torch.full((5,), 0.5)}, backend=b),
    "regularize_": lambda x, a, b: regularize_([x], a, 0.2, backend=b),
}


@pytest.mark.parametrize("name", WRITES)
def test_vmap_of_writes_in_place(name: str, backend: str) -> None:
    write = WRITES[name]
    start, l1 = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, 4)
    one_by_one = start.clone()
    values = [write(x, a, backend) for x, a in zip(one_by_one, l1, strict=True)]
    for dims in (0, 1):
        x = start.clone().movedim(0, dims)  # rows with gaps, too
        version = x._version
        found = torch.vmap(lambda row, a: write(row, a, backend), in_dims=(dims, 0))(x, l1)
        torch.testing.assert_close(found, torch.stack(values), rtol=0, atol=0)
        torch.testing.assert_close(x.movedim(dims, 0), one_by_one, rtol=0, atol=0)
        assert x._version > version


def test_vmap_of_add_grad(backend: str) -> None:
    def step(x: Tensor) -> Tensor:
        y = x * 1
        y.grad = x * 2
        add_grad_([y], 0.3, 0.7, backend=backend)
        return y.grad

    x = leaves()[0]
    same(torch.vmap(step)(x), 2 * x + 0.3 * x.sign() + 1.4 * x)


def test_vmap_refuses_a_write_that_has_no_row_of_its_own(backend: str) -> None:
    x = torch.ones(3)
    with pytest.raises(ValueError, match=r"^written: under vmap a tensor that is not mapped .* \(in_dims\)"):
        torch.vmap(lambda a: prox_([x], a, backend=backend))(torch.ones(2))
    with pytest.raises(ValueError, match=r"^written: two of these tensors are the same memory.*clone\(\)"):
        torch.vmap(lambda row: prox_([row], 0.1, backend=backend))(x.expand(2, 3))
    with pytest.raises(ValueError, match=r"^written: two of these tensors are the same memory"):
        torch.vmap(lambda row: prox_([row, row], 0.1, backend=backend))(torch.ones(2, 3))
    assert x.tolist() == [1.0] * 3


def written_inside(x: Tensor, backend: str) -> Tensor:
    y = x * 3
    prox_([y], 0.1, backend=backend)
    return y.sum()


FOLLOWED: dict[str, Callable[[Fn, Tensor], Any]] = {
    "grad": lambda f, x: torch.func.grad(f)(x),
    "grad_and_value": lambda f, x: torch.func.grad_and_value(f)(x),
    "vjp": lambda f, x: torch.func.vjp(f, x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
    "vmap of grad": lambda f, x: torch.vmap(torch.func.grad(f))(x[None]),
    "grad of vmap": lambda f, x: torch.func.grad(lambda y: torch.vmap(f)(y).sum())(x[None]),
    "dual": lambda f, x: dual(f, x),
}


def dual(f: Fn, x: Tensor) -> Any:
    with torch.autograd.forward_ad.dual_level():
        return f(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_write_to_what_a_derivative_follows_is_refused(name: str, backend: str) -> None:
    x = torch.ones(3)
    for f in (written_inside, lambda y, backend: prox_([y], 0.1, backend=backend)):
        with pytest.raises(ValueError, match=r"^params at '0': .*not (be )?recorded.*detach\(\)"):
            FOLLOWED[name](lambda y, f=f: f(y, backend), x)
    assert x.tolist() == [1.0] * 3


def test_a_write_beside_what_a_derivative_follows_is_right(backend: str) -> None:
    def f(x: Tensor) -> Tensor:
        y = (3 * x).detach()
        prox_([y], 1.0, backend=backend)
        return (x * y).sum()

    assert torch.func.grad(f)(torch.ones(3)).tolist() == [2.0] * 3
    assert torch.func.jvp(f, (torch.ones(3),), (torch.ones(3),))[1].item() == 6.0


def test_functionalize_refuses_a_write(backend: str) -> None:
    with pytest.raises(RuntimeError, match=r"^params: torch\.func\.functionalize cannot .* Use torch\.compile"):
        torch.func.functionalize(lambda x: prox_([x], 0.1, backend=backend))(torch.ones(3))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's look at arguments
def test_a_compiled_write_to_the_result_of_an_operation_is_refused(backend: str) -> None:
    torch._dynamo.reset()
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"^params at '0': .*would not be recorded.*detach\(\)"):
        torch.compile(lambda x: written_inside(x, backend), backend="eager")(x)
    transformed = torch.compile(lambda x: torch.func.grad(written_inside)(x, backend), backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="params at '0'"):
        transformed(x.detach())
