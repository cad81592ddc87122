"""In place in torch: add_grad_, prox_ and regularize_ on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support import edges, oracle
from tests.support.check import close_gradient, close_value
from tests.support.fresh import run_fresh
from tests.support.frontends import DTYPES

torch = pytest.importorskip("torch")

from fused_penalty.torch import add_grad_, penalty, prox_, regularize_

L1, L2 = 0.2, 0.03


def with_gradients(frontend: Any, leaves: list[np.ndarray], grads: list[np.ndarray]) -> list[Any]:
    xs = [x.requires_grad_() for x in frontend.to(leaves)]
    for x, g in zip(xs, frontend.to(grads), strict=True):
        x.grad = g
    return xs


@pytest.mark.parametrize("anchored", [False, True])
def test_add_grad_of_every_edge_case(frontend: Any, dtype: str, anchored: bool) -> None:
    leaves = [x for _, x in edges.edge_leaves(DTYPES[dtype], frontend.chunk)]
    rng = np.random.default_rng(1)
    grads = [rng.standard_normal(x.shape).astype(x.dtype) for x in leaves]
    anchors = [rng.standard_normal(x.shape).astype(x.dtype) for x in leaves] if anchored else None
    xs = with_gradients(frontend, leaves, grads)
    kw = {} if anchors is None else {"anchor": frontend.to(anchors)}
    value = add_grad_(xs, L1, L2, backend=frontend.backend, **kw)
    assert not value.requires_grad
    expected = oracle.penalty(leaves, [L1] * len(leaves), [L2] * len(leaves), anchors)
    close_value(frontend.back(value), expected, wide=dtype == "float64")
    for i, (x, leaf, g) in enumerate(zip(xs, leaves, grads, strict=True)):
        extra = oracle.gradient(leaf, L1, L2, None if anchors is None else anchors[i])
        wide = g.astype(np.float64)
        close_gradient(frontend.back(x.grad), wide + extra, dtype, np.abs(wide) + np.abs(extra))
        np.testing.assert_array_equal(frontend.back(x), leaf)  # only the gradient is written


@pytest.mark.parametrize("anchored", [False, True])
def test_regularize_of_every_edge_case(frontend: Any, dtype: str, anchored: bool) -> None:
    leaves = [x for _, x in edges.edge_leaves(DTYPES[dtype], frontend.chunk)]
    rng = np.random.default_rng(1)
    anchors = [rng.standard_normal(x.shape).astype(x.dtype) for x in leaves] if anchored else None
    xs = frontend.to(leaves)
    kw = {} if anchors is None else {"anchor": frontend.to(anchors)}
    value = regularize_(xs, L1, L2, backend=frontend.backend, **kw)
    expected = oracle.penalty(leaves, [L1] * len(leaves), [L2] * len(leaves), anchors)
    close_value(frontend.back(value), expected, wide=dtype == "float64")
    for i, (x, leaf) in enumerate(zip(xs, leaves, strict=True)):
        anchor = None if anchors is None else anchors[i]
        scale = np.abs(leaf.astype(np.float64)) + (0 if anchor is None else np.abs(anchor.astype(np.float64)))
        close_gradient(frontend.back(x), oracle.regularized(leaf, L1, L2, anchor), dtype, scale)


def test_mixed_dtypes_and_strengths_in_one_call(frontend: Any) -> None:
    rng = np.random.default_rng(3)
    tree = {n: rng.standard_normal((50, 41)).astype(d) for n, d in DTYPES.items()}
    l1 = {"float16": 0.1, "bfloat16": 0.0, "float32": 0.3, "float64": 0.2}
    for verb, truth in ((prox_, oracle.prox), (regularize_, oracle.regularized)):
        params = frontend.to(tree)
        value = verb(params, l1, 0.25, backend=frontend.backend)
        expected = oracle.penalty(list(tree.values()), list(l1.values()), [0.25] * 4)
        np.testing.assert_allclose(float(value), expected, rtol=1e-6)
        for name, x in tree.items():
            close_gradient(frontend.back(params[name]), truth(x, l1[name], 0.25), name, np.abs(x.astype(np.float64)))


def test_torch7_update_by_hand(frontend: Any) -> None:
    """x - clip(x, -l1, l1) - l2·x, not the Lua's literal -clip(x)."""
    (x,) = frontend.to([np.float32([3.0, -0.5, 0.25, 0.0])])
    value = regularize_([x], l1=0.5, l2=0.25, backend=frontend.backend)
    assert frontend.back(x).tolist() == [3.0 - 0.5 - 0.75, 0.125, -0.0625, 0.0]
    assert float(value) == 0.5 * 3.75 + 0.25 * (9 + 0.25 + 0.0625)


def test_equal_to_autograd(frontend: Any) -> None:
    """After loss.backward(), add_grad_ leaves what (loss + penalty).backward() would have."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).to(frontend.device)
    x = torch.randn(9, 7, device=frontend.device)
    (model(x).square().mean() + penalty(model, L1, L2, backend=frontend.backend)).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=False)
    model(x).square().mean().backward()
    value = add_grad_(model, L1, L2, backend=frontend.backend)
    torch.testing.assert_close(value, penalty(model, L1, L2, backend=frontend.backend).detach())
    for p, g in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_gradients_that_accumulate_or_are_none(frontend: Any) -> None:
    w, b = (x.requires_grad_() for x in frontend.to([np.float32([1, -2]), np.float32([4])]))
    for _ in range(3):
        (2 * w).sum().backward()
    assert float(add_grad_([w, b], 1.0, backend=frontend.backend)) == 7.0  # b is counted ...
    assert w.grad.tolist() == [7.0, 5.0]
    assert b.grad is None  # ... and skipped
    add_grad_([w, b], 1.0, backend=frontend.backend, create=True)
    assert (w.grad.tolist(), b.grad.tolist()) == ([8.0, 4.0], [1.0])
    torch.optim.SGD([w, b]).zero_grad(set_to_none=True)
    add_grad_([w, b], 1.0, backend=frontend.backend)
    assert w.grad is None


def test_frozen_parameters_are_counted_and_left_alone(frontend: Any) -> None:
    model = torch.nn.Linear(2, 1).to(frontend.device)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.ones_(model.bias)
    model.bias.requires_grad_(False)
    model.bias.grad = torch.zeros_like(model.bias)
    for verb in (add_grad_, prox_, regularize_):
        assert float(verb(model, 0.5, backend=frontend.backend)) > 0.4
        assert model.bias.item() == 1.0
        assert model.bias.grad.item() == 0.0
    assert float(prox_(model, 0.5, backend=frontend.backend)) == 0.5  # only the frozen one is left
    assert model.weight.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("layout", ["transposed", "channels_last", "gap", "offset", "expanded gradient order"])
def test_any_strides(frontend: Any, layout: str) -> None:
    torch.manual_seed(1)
    make = {
        "transposed": lambda: torch.randn(5, 7).t(),
        "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "gap": lambda: torch.randn(6, 8)[:, ::2],
        "offset": lambda: torch.randn(101)[3:],
        "expanded gradient order": lambda: torch.randn(4, 3, 5).permute(2, 0, 1),
    }[layout]
    x = make().to(frontend.device)
    grad = torch.randn(x.shape, device=frontend.device)  # in row-major order, whatever x has
    expected = grad + L1 * x.sign() + 2 * L2 * x
    leaf = x.detach().requires_grad_()
    leaf.grad = grad
    add_grad_([leaf], L1, L2, backend=frontend.backend)
    torch.testing.assert_close(leaf.grad, expected)
    assert leaf.grad is grad
    shrunk = (x.sign() * (x.abs() - L1).clamp(min=0)) / (1 + 2 * L2)
    prox_([x], L1, L2, backend=frontend.backend)
    torch.testing.assert_close(x, shrunk)


def test_bits_that_are_negated(frontend: Any) -> None:
    """An imaginary part of a conjugate holds the bits of its opposite."""
    if frontend.device != "cpu":
        pytest.skip("the tensors are made on the CPU")
    for shape in ((), (5,)):
        w = torch.ones(shape, requires_grad=True)
        w.grad = torch.complex(torch.ones(shape), 2 * torch.ones(shape)).conj().imag
        assert w.grad.is_neg()
        add_grad_([w], l2=0.5, backend=frontend.backend)
        torch.testing.assert_close(w.grad, torch.full(shape, -1.0))
        x = torch.complex(torch.ones(shape), 2 * torch.ones(shape)).conj().imag
        prox_([x], 0.5, backend=frontend.backend)
        torch.testing.assert_close(x, torch.full(shape, -1.5))


def test_ties_in_a_module_are_written_once(frontend: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    model.to(frontend.device)
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    regularize_(model, 0.0, 0.5, backend=frontend.backend)
    torch.testing.assert_close(model[1].weight.detach(), before / 2)


def test_autograd_notices_the_write(frontend: Any) -> None:
    """A backward pass that still needs the old value raises, instead of using the new one."""
    for verb in (prox_, regularize_):
        w = torch.ones(3, device=frontend.device, requires_grad=True)
        loss = (w * w).sum()
        verb([w], 0.1, backend=frontend.backend)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    w = torch.ones(3, device=frontend.device, requires_grad=True)
    w.grad = torch.ones_like(w)
    pending = (w.grad * torch.ones(3, device=frontend.device, requires_grad=True)).sum()
    add_grad_([w], 0.1, backend=frontend.backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pending.backward()


def test_inference_mode(frontend: Any) -> None:
    normal = torch.ones(2, device=frontend.device)
    with torch.inference_mode():
        x = torch.ones(2, device=frontend.device)
        prox_([x, normal], 0.25, backend=frontend.backend)
    assert (x.tolist(), normal.tolist()) == ([0.75, 0.75],) * 2
    assert normal._version >= 1


def test_views_that_interleave_share_nothing(frontend: Any) -> None:
    base = torch.ones(4, 6, device=frontend.device)
    prox_([base[:, :2], base[:, 2:4], base[:, 5]], 0.25, backend=frontend.backend)
    assert base.tolist() == [[0.75] * 4 + [1.0, 0.75]] * 4


def test_compiled(frontend: Any) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    params = [torch.randn(5, 3, device=frontend.device), torch.randn(4, device=frontend.device)]
    twins = [p.clone() for p in params]
    backend = frontend.backend

    @torch.compile(fullgraph=True)
    def step(ps: list[Any]) -> Any:
        before = ps[0] * 2
        value = prox_(ps, 0.1, 0.2, step=0.5, backend=backend)
        return before, value, ps[0] * 2, regularize_(ps, 0.1, 0.2, backend=backend)

    before, value, after, second = step(params)
    torch.testing.assert_close(before, twins[0] * 2)
    torch.testing.assert_close(value, prox_(twins, 0.1, 0.2, step=0.5, backend=backend))
    torch.testing.assert_close(after, twins[0] * 2)  # reads before and after the write stay in order
    torch.testing.assert_close(second, regularize_(twins, 0.1, 0.2, backend=backend))
    for p, t in zip(params, twins, strict=True):
        torch.testing.assert_close(p, t)

    model = torch.nn.Linear(4, 3).to(frontend.device)
    model(torch.ones(2, 4, device=frontend.device)).sum().backward()
    expected = [p.grad + 0.1 * p.detach().sign() + 0.4 * p.detach() for p in model.parameters()]
    found = torch.compile(lambda: add_grad_(model, 0.1, 0.2, backend=backend), fullgraph=True)()
    torch.testing.assert_close(found, penalty(model, 0.1, 0.2).detach())
    for p, g in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_opcheck() -> None:
    from fused_penalty.torch import ops

    xs, grads = [torch.randn(4), torch.randn(3, 2)], [torch.randn(4)]
    coefficients = torch.rand(2, 2, dtype=torch.float64)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.add_gradients_.op, (xs, [], grads, [0], coefficients, [3, 3], "cpu"), test_utils=checks)
    torch.library.opcheck(
        ops.update_.op, ([xs[0]], [xs[1]], [], [0], coefficients, [3, 3], 3, "cpu"), test_utils=checks
    )


def test_memory_does_not_grow() -> None:
    """Resident memory over 400 MB of parameters and gradients, at its peak, in a process of its own."""
    code = """
    import resource, torch
    from fused_penalty.torch import add_grad_, prox_, regularize_
    xs = [torch.full((1 << 20,), 0.5).requires_grad_() for _ in range(50)]
    for x in xs: x.grad = torch.full_like(x, 0.25)
    small = [torch.ones(8).requires_grad_()]; small[0].grad = torch.ones(8)
    for f in (add_grad_, prox_, regularize_): f(small, 0.1, 0.1, backend="cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for f in (add_grad_, prox_, regularize_): f(xs, 0.1, 0.1, backend="cpu")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    assert int(run_fresh(code)) < 20_000  # KB; a copy of the parameters is 200,000
