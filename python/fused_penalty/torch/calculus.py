"""The primitive and its calculus in torch: autograd Functions over two custom ops.

    sums(x_1 ... x_n)         S (n, 2) = (Σ|d_i|, Σd_i²), d = x - anchor
    gradients(c, x_1 ... )    c_i0·sign(d_i) + c_i1·d_i

The custom ops (ops.py) are what torch.compile and export see; the Functions add what an op cannot have: forward
mode, vmap and derivatives of every order. The same ops serve every backend, whose launcher does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from . import ops
from .backends.reference import leaf_sums
from .elastic_net import displacements, sign, subgradient
from .followed import is_functionalizing
from .params import is_plain

# Functions. `backend`, `terms` and `anchored` are static; tensors are the leaves, then their anchors.


def _split(tensors: Sequence[Tensor], anchored: bool) -> tuple[list[Tensor], list[Tensor]]:
    n = len(tensors) // 2 if anchored else len(tensors)
    return list(tensors[:n]), list(tensors[n:])


def _displacements(tensors: Sequence[Any], anchored: bool) -> list[Any]:
    return displacements(*_split(tensors, anchored))


def _tangents(tangents: Sequence[Any], anchored: bool, like: Sequence[Tensor]) -> list[Any]:
    """d(x - a) for each leaf, in the compute dtype, or None where it is zero."""
    xs, anchors = _split(tangents, anchored)
    found = []
    for i, d in enumerate(like):
        parts = [t.to(d.dtype) * s for t, s in ((xs[i], 1), (anchors[i] if anchored else None, -1)) if t is not None]
        found.append(sum(parts[1:], parts[0]) if parts else None)
    return found


def _pull_sums(
    static: tuple[str, Any, bool], tensors: Sequence[Tensor], needed: Sequence[bool], ct: Tensor
) -> tuple[list[Any], list[Any]]:
    """The cotangents of leaves and of anchors from that of the sums."""
    backend, terms, anchored = static
    n = len(ct)
    live = [i for i in range(n) if needed[i] or (anchored and needed[n + i])]
    factors = torch.stack([ct[:, 0], 2 * ct[:, 1]], dim=1)
    if len(live) < n:  # frozen leaves are counted, but nothing is computed for them
        factors = torch.stack([factors[i] for i in live])  # no index tensor: it would be copied to the device
        tensors = [tensors[i] for i in live] + [tensors[n + i] for i in live if anchored]
        terms = tuple(terms[i] for i in live)
    found = dict(zip(live, gradients(backend, terms, anchored, factors, *tensors), strict=True))
    x_grads = [found[i] if needed[i] else None for i in range(n)]
    return x_grads, [-found[i] if needed[n + i] else None for i in range(n)] if anchored else []


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(backend: str, terms: Any, anchored: bool, *tensors: Tensor) -> Tensor:
        total: Tensor = ops.sums(*_split(tensors, anchored), list(terms), backend)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.static = inputs[:3]
        ctx.save_for_backward(*inputs[3:])
        ctx.save_for_forward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> Any:
        needed = ctx.needs_input_grad[3:]
        x_grads, anchor_grads = _pull_sums(ctx.static, ctx.saved_tensors, needed, ct)
        return None, None, None, *x_grads, *anchor_grads

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        _, _, anchored = ctx.static
        ds = _displacements(ctx.saved_tensors, anchored)
        rows = []
        for d, t in zip(ds, _tangents(tangents[3:], anchored, ds), strict=True):
            row = [(sign(d) * t).sum(), 2 * (d * t).sum()] if t is not None else [d.new_zeros(())] * 2
            rows.append(torch.stack(row).to(torch.float64))
        return torch.stack(rows)

    @staticmethod
    def vmap(info: Any, in_dims: Any, backend: str, terms: Any, anchored: bool, *tensors: Tensor) -> Any:
        def unfused(*ts: Tensor) -> Tensor:
            return leaf_sums(_displacements(ts, anchored))

        return torch.func.vmap(unfused, in_dims=tuple(in_dims[3:]))(*tensors), 0


# The op has its own derivative for graphs that hold it instead of the Function: exported, traced or from make_fx.


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    xs, anchors, terms, backend = inputs
    ctx.static = backend, tuple(terms), bool(anchors)
    ctx.save_for_backward(*xs, *anchors)


def _pull_op(ctx: Any, ct: Tensor) -> Any:
    needed = [*ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    x_grads, anchor_grads = _pull_sums(ctx.static, ctx.saved_tensors, needed, ct)
    return x_grads, anchor_grads, None, None


ops.sums.op.register_autograd(_pull_op, setup_context=_save)


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(backend: str, terms: Any, anchored: bool, factors: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        live = list(range(len(factors)))
        return tuple(ops.gradients(*_split(tensors, anchored), factors, list(terms), live, backend)[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.static = inputs[:3]
        ctx.save_for_backward(*inputs[3:])
        ctx.save_for_forward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, *cts: Any) -> Any:
        _, _, anchored = ctx.static
        factors, *tensors = ctx.saved_tensors
        ds = _displacements(tensors, anchored)
        rows, x_grads = [], []
        for i, (d, ct) in enumerate(zip(ds, cts, strict=True)):
            wide = ct.to(d.dtype)
            rows.append(torch.stack([(wide * sign(d)).sum(), (wide * d).sum()]))
            x_grads.append((factors[i, 1].to(d.dtype) * wide).to(ct.dtype))
        anchor_grads = [-g for g in x_grads] if anchored else []
        return None, None, None, torch.stack(rows).to(factors.dtype), *x_grads, *anchor_grads

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        _, terms, anchored = ctx.static
        factors, *tensors = ctx.saved_tensors
        ds = _displacements(tensors, anchored)
        d_factors, d_tensors = tangents[3], _tangents(tangents[4:], anchored, ds)
        out = []
        for i, (d, t) in enumerate(zip(ds, d_tensors, strict=True)):
            total = torch.zeros_like(d)
            if d_factors is not None:
                total = total + subgradient(d, d_factors[i, 0].to(d.dtype), d_factors[i, 1].to(d.dtype), terms[i])
            if t is not None:
                total = total + factors[i, 1].to(d.dtype) * t
            out.append(total.to(tensors[i].dtype))
        return tuple(out)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, backend: str, terms: Any, anchored: bool, factors: Tensor, *tensors: Tensor
    ) -> Any:
        def unfused(c: Tensor, *ts: Tensor) -> tuple[Tensor, ...]:
            ds = _displacements(ts, anchored)
            rows = [subgradient(d, c[i, 0].to(d.dtype), c[i, 1].to(d.dtype), terms[i]) for i, d in enumerate(ds)]
            return tuple(row.to(t.dtype) for row, t in zip(rows, ts, strict=False))

        found = torch.func.vmap(unfused, in_dims=tuple(in_dims[3:]))(factors, *tensors)
        return found, (0,) * len(found)


class _Scale(torch.autograd.Function):
    """c·s, but 0 where c is 0, even if s is not finite; its derivatives are those of the product."""

    generate_vmap_rule = True

    @staticmethod
    def forward(c: Tensor, s: Tensor) -> Tensor:
        return torch.where(c == 0, torch.zeros_like(s), c * s)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> Any:
        c, s = ctx.saved_tensors
        return (ct * s).sum_to_size(c.shape), ct * c

    @staticmethod
    def jvp(ctx: Any, dc: Any, ds: Any) -> Tensor:
        c, s = ctx.saved_tensors
        parts = [p for p in (None if dc is None else dc * s, None if ds is None else c * ds) if p is not None]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


# compiled.py tells torch.compile to keep calls of these three whole. In plain eager mode the Functions run the ops' own
# code, whose first call as ops would import torch._dynamo.


def scale(c: Tensor, s: Tensor) -> Tensor:
    # the same as _Scale, except for the derivative in c where c is 0 and s is infinite
    if torch.jit.is_tracing() or is_functionalizing():
        return c * torch.where((c == 0) & ~s.isfinite(), 0.0, s)
    return _Scale.apply(c, s)


def gradients(backend: str, terms: Any, anchored: bool, factors: Tensor, *tensors: Tensor) -> Any:
    return _Gradients.apply(backend, terms, anchored, factors, *tensors)


def differentiable_sums(backend: str, terms: Any, anchored: bool, *tensors: Tensor) -> Tensor:
    return _Sums.apply(backend, terms, anchored, *tensors)


_requires_grad = attrgetter("requires_grad")


def sums(xs: list[Tensor], anchors: list[Tensor], terms: tuple[int, ...], backend: str | None) -> Tensor:
    """S (n, 2) float64 on the device of the leaves; differentiable."""
    tensors = [*xs, *anchors] if anchors else xs
    if is_plain() and not (torch.is_grad_enabled() and any(map(_requires_grad, tensors))):
        total: Tensor = ops.sums.run(xs, anchors, terms, backend or "")
        return total
    if torch.jit.is_tracing() or is_functionalizing():  # a trace with a Function in it cannot be saved
        total = ops.sums.op(xs, anchors, list(terms), backend or "")
        return total
    return differentiable_sums(backend or "", terms, bool(anchors), *tensors)
