"""The norm of a whole model, and clipping by it: `global_norm`, `clip_grad_norm_`."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._core.errors import bad, describe
from .._core.norms import check_max_norm, check_order, order_of, strengths_of
from .leaves import Leaves
from .modes import is_plain
from .params import WRITABLE, Selection, select, select_all, zeros
from .scalars import admit, as_double, is_tensor
from .strengths import combine, requested
from .summaries import stats_of, sums_of
from .types import Params, Scalar
from .updates import scale
from .writable import check_writable

__all__ = ["clip_grad_norm_", "global_norm"]


def global_norm(params: Params, ord: float = 2, *, backend: str | None = None) -> Tensor:
    """Compute the norm of all tensors as if they were one vector: Σ|x|, √Σx² or max|x|, in one launch per device.

    Orders 1 and 2 are differentiable, as `penalty` is; at a point where all is zero the derivative of order 2 is 0, as
    that of `torch.linalg.vector_norm`. Order inf is detached, as `stats` is. The sums stay in float64 until the root is
    taken, so a norm is right where its square is beyond float32's range; only |x| above 1.8e19, whose own square is,
    make it inf. Below 1e-18 squares lose digits.

    Args:
      params: Tensors as in `penalty`, or gradients: a Module (its parameters), a mapping or an iterable, of any of the
        dtypes, also mixed. A None, such as the gradient of a frozen parameter, is left out.
      ord: 1, 2 or inf.
      backend: As in `penalty`.

    Returns:
      A scalar on the first tensor's device: float32, or float64 if any tensor is float64. 0.0 on the CPU if there are
      no tensors.

    Raises:
      TypeError: As in `penalty`, or ord is not a number.
      ValueError: ord is another number, or as in `penalty`.
      RuntimeError: As in `penalty`.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import global_norm
      >>> grads = [torch.tensor([3.0, 0.0]), None, torch.tensor(-4.0)]
      >>> [float(global_norm(grads, order)) for order in (1, 2, float("inf"))]
      [7.0, 5.0, 4.0]
    """
    order = check_order("ord", ord)
    s = select(_present(params), *strengths_of(order), None, None)
    backend = requested(backend)
    if not s.leaves:
        return zeros()
    return _norm(s, order, backend)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: Scalar,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Scale gradients in place so that their global norm is at most max_norm: `torch.nn.utils.clip_grad_norm_`, in one
    launch per device for the norm and one for the gradients.

        g ← c·g for every gradient g,    c = min(max_norm / (norm + 1e-6), 1)

    c stays on the device: without `error_if_nonfinite` the host waits for nothing. Every gradient is multiplied, also
    by c = 1, as IEEE arithmetic has it: a norm that is NaN makes all of them NaN, and one that is inf makes them 0, but
    for inf itself, which becomes NaN. Results are torch's, to rounding, with these differences:

    - The norm of gradients of 16 bits, and c, are float32, where torch rounds both to 16 bits.
    - A gradient that several entries of the list hold counts once and is scaled once; torch scales it each time.
    - DTensors may lie on several meshes, beside plain tensors; the norm is a plain tensor, the same on all ranks.

    Args:
      parameters: A tensor or an iterable of tensors, whose `.grad` are scaled; those without one are ignored. The
        gradients are dense and of dtype float16, bfloat16, float32 or float64, also mixed.
      max_norm: A float >= 0, or a 0-d tensor, which is not read on the host.
      norm_type: 1, 2 or inf. For any other order torch's own function is called, which reads a tensor max_norm.
      error_if_nonfinite: Whether a norm that is not finite is an error. The host then waits for the norm.
      foreach: For torch's own function; one launch takes all gradients in any case.
      backend: As in `penalty`.

    Returns:
      The norm before clipping, detached: float32, or float64 if any gradient is float64, on the first gradient's
      device. 0.0 on the CPU if there are no gradients.

    Raises:
      TypeError: parameters, max_norm or norm_type are of a wrong type, or a gradient is sparse or of another dtype.
      ValueError: max_norm is negative or NaN; gradients share elements, are expanded, or are results of recorded
        operations; norm_type is another order and there is a backend; or as in `penalty`.
      RuntimeError: The norm is not finite and `error_if_nonfinite` is true; or as in `penalty`. Nothing has been
        written when an error is raised.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import clip_grad_norm_
      >>> w = torch.zeros(2, requires_grad=True)
      >>> w.grad = torch.tensor([3.0, -4.0])
      >>> float(clip_grad_norm_([w], max_norm=2.5)), [round(g, 4) for g in w.grad.tolist()]
      (5.0, [1.5, -2.0])
    """
    limit = check_max_norm(max_norm, is_tensor, admit=admit)
    number = _number(norm_type)
    order = order_of(number)
    backend = requested(backend)
    listed = _listed(parameters)
    if order is None:
        if backend is not None:
            raise bad(
                ValueError, "norm_type", f"the backend {backend!r} has no norm of order {number}",
                "Use 1, 2 or inf, or leave backend= out: torch's own function is called then",
            )  # fmt: skip
        return torch.nn.utils.clip_grad_norm_(listed, float(limit), number, error_if_nonfinite, foreach)
    grads = _gradients(listed)
    if not grads:
        return zeros()
    with torch.no_grad():
        flat = Leaves(lambda: _names(listed, grads), grads, None)
        s = select_all("parameters", flat, *strengths_of(order), _check_gradients)
        norm = _norm(s, order, backend)
        if error_if_nonfinite and not norm.isfinite():
            raise RuntimeError(
                f"The total norm of order {order} for gradients from `parameters` is non-finite, so it cannot be "
                "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
                "`error_if_nonfinite=False`"
            )
        check_writable(s, s.params)
        if isinstance(limit, Tensor):
            limit = limit.to(norm.device, norm.dtype)
        factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
        scale(s, as_double(factor, factor.device), backend)
    return norm


def _norm(s: Selection, order: float, backend: str | None) -> Tensor:
    """The norm of a selection whose strengths are 1 for the sum that the order needs, in the result's dtype."""
    if order == math.inf:
        return stats_of(s, backend)[:, 2].max().to(s.dtype)
    total = combine(s, sums_of(s, backend))
    return (total if order == 1 else _root(total)).to(s.dtype)


def _root(square: Tensor) -> Tensor:
    """√square, with derivative 0 at 0, where that of the root is infinite and its product with x = 0 would be NaN."""
    none = square == 0
    return torch.where(none, 0.0, torch.where(none, 1.0, square).sqrt())


def _present(params: Params) -> Params:
    """Without what is None; the names of the rest are their positions, or those that they have."""
    if isinstance(params, (nn.Module, Mapping, Tensor, str, bytes)) or not isinstance(params, Iterable):
        return params
    items = list(params)
    if not any(map(_is_absent, items)):
        return items
    return [x if isinstance(x, tuple) else (str(i), x) for i, x in enumerate(items) if not _is_absent(x)]


def _is_absent(x: Any) -> bool:
    return x is None or (type(x) is tuple and len(x) == 2 and x[1] is None)


def _number(norm_type: Any) -> float:
    try:
        return float(norm_type)  # torch takes "inf", too
    except (TypeError, ValueError):
        raise bad(TypeError, "norm_type", f"{describe(norm_type)} is not a number", "Use 1, 2 or inf") from None


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        return [parameters]
    if isinstance(parameters, (str, bytes, Mapping)) or not isinstance(parameters, Iterable):
        raise bad(
            TypeError, "parameters", f"{describe(parameters)} is not a list of tensors",
            "Give a tensor or an iterable of tensors, such as model.parameters()",
        )  # fmt: skip
    listed = list(parameters)
    if not listed and isinstance(parameters, types.GeneratorType):
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    return listed


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    """The gradients, each once."""
    try:
        found: list[Any] = [p.grad for p in parameters]
    except AttributeError:
        i, p = next((i, p) for i, p in enumerate(parameters) if not isinstance(p, Tensor))
        raise bad(
            TypeError, "parameters", f"{describe(p)} is not a torch tensor",
            "Give tensors only, such as model.parameters()", path=str(i),
        ) from None  # fmt: skip
    if is_plain():  # the usual case, told quickly: all there, all different
        different = set(map(id, found))
        if len(different) == len(found) and id(None) not in different:
            return found
    return [g for g in dict.fromkeys(found) if g is not None]


def _names(parameters: list[Tensor], grads: list[Tensor]) -> list[str]:
    """`3.grad`: the gradient of the first parameter that holds it."""
    first: dict[Tensor | None, int] = {}
    for i, p in enumerate(parameters):
        first.setdefault(p.grad, i)
    return [f"{first[g]}.grad" for g in grads]


def _check_gradients(grads: Sequence[Any], names: Sequence[str]) -> None:
    """Raise for the first gradient that no launch can write. There is no mask that could leave it out."""
    for g, name in zip(grads, names, strict=True):
        if g.layout is not torch.strided or g.dtype not in WRITABLE or g.is_meta:
            raise bad(
                TypeError, "parameters", f"a tensor of {g.layout} and {g.dtype} on {g.device} cannot be scaled",
                "Make it dense (Embedding(sparse=False)) and floating, or leave its parameter out", path=name,
            )  # fmt: skip
