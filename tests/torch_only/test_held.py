"""Addresses are had with the tensors they point into; and bits are read with their sign."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor

from fused_penalty.torch import add_grad_, penalty, penalty_and_grad, prox_, regularize_, stats, sums
from tests.support import frontends

# Anchors that have to be copied, or whose leaf has to be.
COPIED: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "transposed": lambda: (torch.ones(512, 256), torch.ones(256, 512).t()),
    "transposed leaf": lambda: (torch.ones(256, 512).t(), torch.ones(512, 256)),
    "channels_last": lambda: (
        torch.ones(8, 16, 32, 32),
        torch.ones(8, 16, 32, 32).to(memory_format=torch.channels_last),
    ),
    "sliced": lambda: (torch.ones(512, 256), torch.ones(512, 512)[:, :256]),
    "every second": lambda: (torch.ones(100_000), torch.ones(200_000)[::2]),
    "expanded": lambda: (torch.ones(512, 256), torch.ones(1).expand(512, 256)),
    "negated": lambda: (torch.ones(100_000), torch._neg_view(-torch.ones(100_000))),
}


@pytest.mark.parametrize("name", COPIED)
@pytest.mark.parametrize("backend", frontends.on_cpu("torch"))
def test_a_copied_anchor_lives_until_the_kernel_has_read_it(backend: str, name: str) -> None:
    """Each leaf equals its anchor: all is 0, and nothing moves."""
    x, anchor = COPIED[name]()
    if backend == "triton":
        x, anchor = (t[(slice(8),) * t.ndim] for t in (x, anchor))  # its interpreter is slow
    kw: dict[str, Any] = {"anchor": [anchor, anchor], "backend": backend}
    xs = [x, x.clone()]
    assert float(penalty(xs, 1.0, 1.0, **kw)) == 0
    value, grads = penalty_and_grad(xs, 1.0, 1.0, **kw)
    assert (float(value), [float(g.abs().max()) for g in grads]) == (0, [0, 0])
    assert sums(xs, **kw).square.tolist() == [0, 0]
    assert stats(xs, **kw).max.tolist() == [0, 0]
    for x in xs:
        x.grad = torch.full_like(x, 2.0)
    for verb in (add_grad_, prox_, regularize_):
        assert float(verb(xs, 1.0, 1.0, **kw)) == 0
    assert all(bool((x == 1).all()) and bool((x.grad == 2).all()) for x in xs)


def test_whoever_has_addresses_has_tensors() -> None:
    from fused_penalty.torch.backends.native import dense

    x, anchor = torch.ones(6, 4), torch.ones(4, 6).t()
    buffers = dense([x, x[:, ::2]], [anchor, anchor[:, ::2]])
    gc.collect()
    for held in (buffers.x, buffers.anchor):
        assert held is not None
        tensors = [t for t in held.tensors if t is not None]
        assert held.read.addresses == [t.data_ptr() for t in tensors]
        assert all(
            t.stride() == like.stride() for t, like in zip(tensors, buffers.x.tensors, strict=True) if like is not None
        )


DENSE: dict[str, Callable[[Tensor], Tensor]] = {
    "negated": lambda x: torch._neg_view(-x),
    "negated parameter": lambda x: torch.nn.Parameter(torch._neg_view(-x), requires_grad=False).data,
    "all of a conjugate": lambda x: torch.view_as_complex(-x.reshape(-1, 2)).conj().imag.as_strided(x.shape, (1,), 0),
}


@pytest.mark.parametrize("role", ["leaf", "anchor", "gradient"])
@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("backend", frontends.on_cpu("torch"))
def test_dense_memory_that_is_negated(backend: str, name: str, role: str) -> None:
    plain = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, -1.0])
    odd = DENSE[name](plain)
    assert odd.is_neg()
    assert odd.is_contiguous()
    assert torch.equal(odd, plain)

    def run(x: Tensor) -> list[Any]:
        other = torch.arange(6.0)
        leaf = x if role == "leaf" else other
        kw: dict[str, Any] = {"backend": backend, **({"anchor": [x]} if role == "anchor" else {})}
        found: list[Any] = [penalty([leaf], 0.5, 0.25, **kw), *penalty_and_grad([leaf], 0.5, 0.25, **kw)[1]]
        found += [*sums([leaf], **kw)[:2], *stats([leaf], **kw)[:5]]
        leaf = leaf.detach()
        leaf.grad = x.detach() if role == "gradient" else torch.ones(6)
        add_grad_([leaf], 0.5, 0.25, **kw)
        found.append(leaf.grad.clone())
        for verb in (prox_, regularize_):
            verb([leaf], 0.5, 0.25, **kw)
            found.append(leaf.clone())
        return [f.tolist() for f in found]

    assert run(odd) == run(plain.clone())


STRIDED: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor | None]]] = {
    "gaps, permuted": (lambda: torch.randn(6, 8).t()[:, ::2], lambda: None),
    "gaps, permuted, anchored": (lambda: torch.randn(6, 8).t()[:, ::2], lambda: torch.randn(8, 3)),
    "anchor in another order": (lambda: torch.randn(8, 6).t(), lambda: torch.randn(6, 8)),
    "expanded": (lambda: torch.randn(1, 4).expand(3, 4).t(), lambda: None),
}


@pytest.mark.parametrize("name", STRIDED)
def test_gradients_lie_in_memory_as_the_compiler_was_told(name: str) -> None:
    x, anchor = (make() for make in STRIDED[name])
    given = None if anchor is None else [anchor]
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x: Tensor) -> Any:
        return penalty_and_grad([x], 0.5, 0.25, anchor=given, backend="cpu")

    assert x is not None
    value, (grad,) = penalty_and_grad([x], 0.5, 0.25, anchor=given, backend="cpu")
    assert grad.stride() == torch.empty_like(x).stride()
    same, (twin,) = compiled(x)
    assert (float(value), grad.tolist(), grad.stride()) == (float(same), twin.tolist(), twin.stride())
