"""`clip_grad_norm_` beside torch's own, on every backend."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from tests.support import edges
from tests.support.frontends import DTYPES, ULP

torch = pytest.importorskip("torch")

from fused_penalty.torch import clip_grad_norm_

ORDERS = (1, 2, math.inf)


def parameters(grads: list[Any]) -> list[Any]:
    """A parameter for each gradient; None gives one without."""
    found = []
    for g in grads:
        p = torch.zeros(2 if g is None else g.shape, dtype=None if g is None else g.dtype, requires_grad=True)
        p = p if g is None else p.to(g.device).detach().requires_grad_()
        p.grad = g
        found.append(p)
    return found


def twins(frontend: Any, grads: list[np.ndarray]) -> tuple[list[Any], list[Any]]:
    return parameters(frontend.to(grads)), parameters(frontend.to(grads))


def bits(x: Any) -> Any:
    """Equal for equal numbers, NaN included, and not for 0.0 and -0.0."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return torch.where(x.isnan(), 1, x.contiguous().view(integer))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("share", [0.25, 4.0, math.inf])
def test_equals_torch_in_float64_on_every_edge_case(frontend: Any, dtype: str, order: float, share: float) -> None:
    """The largest norm is `share` of the norm there is. torch's own sums in float32 err by up to 8e-5 here."""
    leaves = [x for _, x in edges.edge_leaves(DTYPES[dtype], frontend.chunk) if x.size or order != math.inf]
    ours = parameters(frontend.to(leaves))
    theirs = parameters([p.grad.double().clone() for p in ours])
    wide = torch.cat([q.grad.flatten() for q in theirs])
    max_norm = share * float(torch.linalg.vector_norm(wide, order))
    found = clip_grad_norm_(ours, max_norm, order, backend=frontend.backend)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, order)
    assert (found.dtype, found.requires_grad) == (torch.float64 if dtype == "float64" else torch.float32, False)
    bound = 1e-13 if dtype == "float64" else 1e-6
    torch.testing.assert_close(found.double(), expected, rtol=bound, atol=0)
    smallest = {"float16": 6e-8, "bfloat16": 1e-37, "float32": 1e-37, "float64": 0}[dtype]
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=bound + ULP[dtype], atol=smallest)


@pytest.mark.parametrize("order", ORDERS)
def test_equals_torch_to_one_ulp(frontend: Any, order: float) -> None:
    """For lists so short that torch's sums are exact to rounding, too."""
    rng = np.random.default_rng(int(min(order, 9)))
    for _ in range(20):
        ours, theirs = twins(frontend, [rng.standard_normal(n).astype(np.float32) for n in (3, 1, 4)])
        found = clip_grad_norm_(ours, 1.0, order, backend=frontend.backend)
        expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0, order)
        for a, b in ((found, expected), *((p.grad, q.grad) for p, q in zip(ours, theirs, strict=True))):
            torch.testing.assert_close(a, b, rtol=2 * ULP["float32"], atol=0)


@pytest.mark.parametrize("max_norm", [7500.0, 30000.0, 0.0, 1e-36])
def test_the_scaling_is_a_multiplication_to_the_bit(frontend: Any, dtype: str, max_norm: float) -> None:
    """inf, NaN, subnormal numbers and the sign of zeros as IEEE arithmetic has them. Order inf, whose norm is exact."""
    values = [0.0, -0.0, 1.0, -2.5, 6e-8, -6e-8, 1e-40, -1e-40, 3e4, math.inf, -math.inf, math.nan]
    every = np.array(values * 7).astype(DTYPES[dtype])
    for x in (every, every[~np.isnan(every)], every[np.isfinite(every)]):  # the norm is NaN, inf, 3e4
        (p,), (q,) = twins(frontend, [x])
        norm = clip_grad_norm_([p], max_norm, math.inf, backend=frontend.backend)
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        wide = torch.float64 if dtype == "float64" else torch.float32
        assert torch.equal(bits(p.grad), bits((q.grad.to(wide) * factor).to(q.grad.dtype)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_norms_that_are_not_finite(frontend: Any, value: float, order: float) -> None:
    ours, theirs = twins(frontend, [np.float32([1.0, value, -0.0]), np.float32([2.0])])
    before = [p.grad.clone() for p in ours]
    with pytest.raises(RuntimeError) as found:
        clip_grad_norm_(ours, 1.0, order, error_if_nonfinite=True, backend=frontend.backend)
    with pytest.raises(RuntimeError) as expected:
        torch.nn.utils.clip_grad_norm_(theirs, 1.0, order, error_if_nonfinite=True)
    assert str(found.value) == str(expected.value)
    for p, g in zip(ours, before, strict=True):
        assert torch.equal(bits(p.grad), bits(g))
        assert p.grad._version == 0
    norm = clip_grad_norm_(ours, 1.0, order, backend=frontend.backend)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs, 1.0, order), equal_nan=True)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(bits(p.grad), bits(q.grad))


def test_a_norm_whose_square_is_beyond_float32(frontend: Any) -> None:
    ours, _ = twins(frontend, [np.full(300, 1.5e19, np.float32)])
    norm = clip_grad_norm_(ours, 1.0, backend=frontend.backend)
    assert float(norm) == pytest.approx(1.5e19 * math.sqrt(300), rel=1e-6)
    torch.testing.assert_close(ours[0].grad, torch.full_like(ours[0].grad, 1 / math.sqrt(300)))


def test_mixed_dtypes_and_layouts(frontend: Any) -> None:
    torch.manual_seed(0)
    made = [
        torch.randn(5, 7).t(), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.randn(6, 8)[:, ::2],
        torch.randn(101)[3:].double(), torch.randn(4, 3).half(), torch.randn(()).bfloat16(), torch.empty(0, 3),
    ]  # fmt: skip
    grads = [g.to(frontend.device) for g in made]
    kept = [g.clone() for g in grads]
    norm = clip_grad_norm_(parameters(grads), 1.0, backend=frontend.backend)
    expected = torch.linalg.vector_norm(torch.cat([g.double().flatten() for g in kept]))
    torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
    for g, old in zip(grads, kept, strict=True):
        torch.testing.assert_close(g, (old.double() / (expected + 1e-6)).to(g.dtype))


def test_bits_that_are_negated(frontend: Any) -> None:
    if frontend.device != "cpu":
        pytest.skip("the tensors are made on the CPU")
    for size in (1, 5, 9):
        pairs = torch.complex(torch.zeros(size), torch.arange(1.0, size + 1))
        grad = pairs.conj().imag
        assert grad.is_neg()
        (p,) = parameters([grad])
        norm = clip_grad_norm_([p], 1.0, math.inf, backend=frontend.backend)
        assert float(norm) == size
        torch.testing.assert_close(p.grad.clone(), -torch.arange(1.0, size + 1) / size)
        torch.testing.assert_close(pairs.imag, torch.arange(1.0, size + 1) / size)


def test_any_iterable(frontend: Any) -> None:
    for give in (list, tuple, iter, lambda ps: (p for p in ps), lambda ps: dict(enumerate(ps)).values()):
        ps = parameters(frontend.to([np.float32([3.0]), np.float32([-4.0])]))
        assert float(clip_grad_norm_(give(ps), 2.5, backend=frontend.backend)) == 5.0
        assert [round(float(p.grad), 5) for p in ps] == [1.5, -2.0]


def test_a_single_tensor_and_parameters_without_a_gradient(frontend: Any) -> None:
    p, none = parameters([*frontend.to([np.float32([3.0, -4.0])]), None])
    assert float(clip_grad_norm_(p, 2.5, backend=frontend.backend)) == 5.0
    assert float(clip_grad_norm_([none, p], 100.0, backend=frontend.backend)) == pytest.approx(2.5)
    assert none.grad is None


def test_nothing_to_clip_is_zero() -> None:
    for nothing in ([], [torch.ones(3, requires_grad=True)], torch.ones(3, requires_grad=True)):
        found, expected = clip_grad_norm_(nothing, 1.0), torch.nn.utils.clip_grad_norm_(nothing, 1.0)
        assert (found, found.dtype, found.device) == (expected, expected.dtype, expected.device)
    with pytest.warns(UserWarning, match="`parameters` is an empty generator, no gradient clipping will occur") as seen:
        assert float(clip_grad_norm_((p for p in ()), 1.0)) == 0.0
    assert seen[0].filename == __file__


def test_a_limit_that_is_a_tensor_is_not_read(frontend: Any) -> None:
    """It goes to the norm's dtype and device; NaN and negative ones give what IEEE arithmetic gives."""
    for limit in (torch.tensor(2.5), torch.tensor(2.5, dtype=torch.float64, device=frontend.device), np.float32(2.5)):
        (p,) = parameters(frontend.to([np.float32([3.0, -4.0])]))
        assert float(clip_grad_norm_([p], limit, backend=frontend.backend)) == 5.0
        torch.testing.assert_close(p.grad.cpu(), torch.tensor([1.5, -2.0]))


def test_a_gradient_that_two_parameters_share_is_scaled_once(frontend: Any) -> None:
    """torch counts and scales it twice."""
    a, b = parameters(frontend.to([np.float32([3.0, -4.0])] * 2))
    b.grad = a.grad
    assert float(clip_grad_norm_([a, b, a], 2.5, backend=frontend.backend)) == 5.0
    torch.testing.assert_close(a.grad.cpu(), torch.tensor([1.5, -2.0]))


def test_autograd_notices_the_write(frontend: Any) -> None:
    (p,) = parameters(frontend.to([np.float32([3.0, -4.0])]))
    pending = (p.grad * torch.ones(2, device=frontend.device, requires_grad=True)).sum()
    clip_grad_norm_([p], 1.0, backend=frontend.backend)
    assert p.grad._version >= 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pending.backward()


def test_other_orders_are_torchs_own() -> None:
    grads = [torch.randn(5), torch.randn(3, 2)]
    for order in (3, 0.5, 0, -math.inf):
        ours, theirs = parameters([g.clone() for g in grads]), parameters([g.clone() for g in grads])
        found = clip_grad_norm_(iter(ours), torch.tensor(0.5), order)
        assert torch.equal(found, torch.nn.utils.clip_grad_norm_(theirs, 0.5, order))
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours, theirs, strict=True))
        with pytest.raises(ValueError, match=r"norm_type: the backend 'cpu' has no norm of order"):
            clip_grad_norm_(ours, 1.0, order, backend="cpu")
    (p,) = parameters([torch.tensor([3.0, -4.0])])
    assert float(clip_grad_norm_([p], 1.0, "inf")) == 4.0  # type: ignore[arg-type]


def test_compiled(frontend: Any) -> None:
    """In one graph, which fresh gradients do not compile again."""
    torch._dynamo.reset()
    backend, compiled = frontend.backend, []

    def count(graph: Any, example: Any) -> Any:
        compiled.append(graph)
        return graph

    step = torch.compile(lambda ps: clip_grad_norm_(ps, 2.5, backend=backend), fullgraph=True, backend=count)
    leaves = [np.float32([[3.0, 0.0]]), np.float32([-4.0])]
    ps = parameters(frontend.to(leaves))
    for k in (1, 2, 4):
        for p, g in zip(ps, frontend.to(leaves), strict=True):
            p.grad = k * g
        assert float(step(ps)) == 5.0 * k
        torch.testing.assert_close(ps[0].grad.cpu(), torch.tensor([[1.5, 0.0]]))
        torch.testing.assert_close(ps[1].grad.cpu(), torch.tensor([-2.0]))
    assert len(compiled) == 1


def test_under_a_gradient_scaler_and_an_optimizer() -> None:
    """The usual loop: 10 steps with both clippings end at the same weights."""
    found = []
    for clip in (clip_grad_norm_, torch.nn.utils.clip_grad_norm_):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        for _ in range(10):
            optimizer.zero_grad()
            scaler.scale((model(torch.randn(9, 7)) - 1).square().mean()).backward()
            scaler.unscale_(optimizer)
            clip(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
        found.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class TestRefused:
    """Before anything is written."""

    def refused(self, grad: Any, message: str, kind: type[Exception], value: Any = None) -> None:
        other, bad = parameters([torch.ones(3)])[0], torch.ones(grad.shape, requires_grad=True)
        bad = bad if value is None else value
        bad.grad = grad
        with warnings.catch_warnings(), pytest.raises(kind, match=message):
            clip_grad_norm_([other, torch.ones(2, requires_grad=True), bad], 0.5, backend="cpu")
        assert other.grad.tolist() == [1.0] * 3

    def test_sparse(self) -> None:
        message = r"parameters at '2\.grad': a tensor of torch\.sparse_coo .*Embedding\(sparse=False\)"
        self.refused(torch.ones(3).to_sparse(), message, TypeError)

    def test_dtypes(self) -> None:
        for dtype in (torch.complex64, torch.float8_e4m3fn):
            value = torch.ones(3).to(dtype).requires_grad_()
            self.refused(torch.ones(3).to(dtype), rf"parameters at '2\.grad': .*{dtype}", TypeError, value)

    def test_expanded(self) -> None:
        self.refused(torch.ones(1).expand(3), r"parameters at '2\.grad': .* holds an element twice", ValueError)

    def test_recorded(self) -> None:
        grad = torch.ones(3, requires_grad=True) * 2
        self.refused(grad, r"parameters at '2\.grad': the result of an operation", ValueError)

    def test_overlapping(self) -> None:
        base = torch.ones(6)
        ps = parameters([base[:4], base[2:]])
        with pytest.raises(ValueError, match=r"parameters at '0\.grad': shares elements with '1\.grad'"):
            clip_grad_norm_(ps, 0.5)
        assert base.tolist() == [1.0] * 6
