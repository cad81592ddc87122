"""What add_grad_, prox_ and regularize_ refuse, on every backend, before they write anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fused_penalty.torch import add_grad_, prox_


def _inference() -> Any:
    with torch.inference_mode():
        return torch.ones(3)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "the same tensor twice": (lambda: [b := torch.ones(3), b], r"params at '0': .*shares elements with '1'"),
    "overlapping views": (lambda: [(b := torch.ones(9))[:6], b[5:]], r"shares elements"),
    "expanded": (lambda: [torch.ones(3, 1).expand(3, 4)], r"params at '0': .*holds an element twice.*strides"),
    "sliding windows": (lambda: [torch.ones(9).unfold(0, 4, 2)], r"holds an element twice"),
    "inference": (lambda: [_inference()], r"an inference tensor.*inference_mode"),
    "result of an operation": (lambda: [torch.ones(3, requires_grad=True) * 2], r"result of an operation"),
}


@pytest.mark.parametrize("verb", ["prox_", "regularize_"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_written(frontend: Any, verb: str, name: str) -> None:
    make, message = REFUSED[name]
    first, bad = torch.ones(2), make()
    moved = [first, *bad]
    if frontend.device != "cpu":
        pytest.skip("the tensors of this table are made on the CPU")
    before = [x.detach().clone() for x in moved]
    with pytest.raises(ValueError, match=message.replace("'0'", "'1'").replace("with '1'", "with '2'")):
        getattr(frontend.verbs, verb)(moved, 0.1, 0.1, backend=frontend.backend)
    for x, old in zip(moved, before, strict=True):
        assert torch.equal(x.detach(), old)


def test_interleaving_views_do_not_hide_a_shared_element(frontend: Any) -> None:
    base = torch.ones(4, 6, device=frontend.device)
    with pytest.raises(ValueError, match="shares elements"):
        prox_([base[:, :2], base[:, 2:4], base[1, 1:2]], 0.25, backend=frontend.backend)
    assert torch.equal(base, torch.ones_like(base))


def test_an_anchor_that_is_the_parameter_itself_is_refused(frontend: Any) -> None:
    w = torch.ones(3, device=frontend.device)
    with pytest.raises(ValueError, match=r"shares elements with .*anchor.*clone"):
        prox_([w], 0.1, anchor=[w], backend=frontend.backend)


class TestGradients:
    """Gradients that cannot be added to."""

    def refused(self, grad: Any, message: str, kind: type[Exception] = ValueError, dtype: Any = None) -> None:
        w = torch.nn.Parameter(torch.ones(3))
        other = torch.nn.Parameter(torch.ones(3))
        other.grad = torch.zeros(3)
        w.grad = grad
        with pytest.raises(kind, match=message):
            add_grad_({"other": other, "w": w}, 0.1, backend="cpu")
        assert other.grad.tolist() == [0.0] * 3

    def test_sparse(self) -> None:
        embedding = torch.nn.Embedding(4, 2, sparse=True)
        embedding(torch.tensor([1])).sum().backward()
        with pytest.raises(TypeError, match=r"params at 'weight': its gradient, .*sparse.*Embedding\(sparse=False\)"):
            add_grad_(embedding, 0.1)

    def test_shared(self) -> None:
        a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
        a.grad = b.grad = torch.zeros(3)
        with pytest.raises(ValueError, match="params at 'a': its gradient, shares elements with 'b'"):
            add_grad_({"a": a, "b": b}, 0.1)
        assert a.grad.tolist() == [0.0] * 3

    def test_expanded(self) -> None:
        self.refused(torch.zeros(1).expand(3), "params at 'w': its gradient, a tensor that holds an element twice")

    def test_recorded(self) -> None:
        self.refused(torch.ones(3, requires_grad=True) * 2, "its gradient, the result of an operation")

    def test_that_is_the_parameter(self) -> None:
        w = torch.nn.Parameter(torch.ones(3))
        w.grad = w.data
        with pytest.raises(ValueError, match="its gradient, shares elements"):
            add_grad_([w], 0.1)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_no_gradient_is_created_for_a_dtype_that_is_only_read(dtype: torch.dtype) -> None:
    """And none for the leaf before it: nothing has been written when a call raises."""
    high, low = torch.ones(2), torch.ones(3).to(dtype)
    assert float(add_grad_({"high": high, "low": low}, 0.5)) == 2.5  # without .grad they only count
    with pytest.raises(TypeError, match=r"params at 'low': a leaf of dtype .* is only read"):
        add_grad_({"high": high, "low": low}, 0.5, create=True)
    assert high.grad is None
    assert low.grad is None
    assert float(add_grad_({"high": high, "low": low}, 0.5, create=True, mask={"high": True, "low": False})) == 1.0
    assert high.grad is not None
