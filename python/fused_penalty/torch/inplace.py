"""In place, one launch per device: `add_grad_`, `prox_`, `regularize_`.

Each makes one pass over memory, returns the penalty of what it read, makes no temporary of the model's size (only for
leaves with gaps in memory), and raises before it has written anything. It bumps autograd's version counters: a backward
pass that still needs an old value raises instead of using the new one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._core.operations import Op
from .._core.plan import L2
from .._core.strengths import check_flag
from .params import Params, Selection, is_frozen, select, zeros
from .scalars import as_double, check_scalar
from .strengths import coefficients_of, combine, requested
from .updates import update
from .writable import check_writable


def add_grad_(
    params: Params,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    mask: Any = None,
    anchor: Any = None,
    frozen: str = "count",
    backend: str | None = None,
    create: bool = False,
) -> Tensor:
    """Adds the penalty's gradient to `.grad`, in place: p.grad += l1·sign(p) + 2·l2·p, in one launch per device.

    Call it after `loss.backward()` (and after `scaler.unscale_(optimizer)` under GradScaler). It replaces a penalty in
    the loss, whose backward costs some microseconds a tensor and a second buffer for the gradients. Gradients that
    accumulate over several backward passes get it once, before the step.

    A parameter without `.grad` is counted but skipped, as torch.optim's weight decay does; `create=True` makes a
    gradient for it. A frozen `nn.Parameter` is left alone, and counted in the value unless `frozen="skip"`.

    Args:
      params, l1, l2, mask, anchor, frozen, backend: as in `penalty`.
      create: make `.grad` where there is none.

    Returns:
      The penalty of params, a detached scalar: float32, or float64 if any selected leaf is float64.

    Raises:
      TypeError, ValueError: as `penalty`; a gradient that is sparse, or not of its leaf's dtype, shape and device;
        tensors that share elements, expanded ones, inference tensors outside inference mode, results of recorded
        operations. Nothing has been written then.

    >>> import torch
    >>> from fused_penalty.torch import add_grad_
    >>> w = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> (3 * w).sum().backward()
    >>> float(add_grad_([w], l1=1.0, l2=0.5)), w.grad.tolist()
    (5.5, [5.0, 0.0])
    """
    create = check_flag("create", create)
    s = select_to_write(params, l1, l2, mask, anchor, frozen)
    backend = requested(backend)
    if not s.leaves:
        return zeros()
    return add_gradients(s, backend, create=create)


def add_gradients(s: Selection, backend: str | None, *, create: bool = False, scale: Tensor | None = None) -> Tensor:
    """`add_grad_` of a selection; `scale` (n,) multiplies what is added, not the penalty that is returned."""
    with torch.no_grad():
        outs = _gradients(s.params)
        check_writable(s, outs, gradients=True)
        for i, x in enumerate(s.params if create else ()):
            if outs[i] is None and x.is_leaf and not is_frozen(x):
                outs[i] = x.grad = torch.zeros_like(x)
        coefficients = coefficients_of(Op.ADD_GRADIENT, s)
        if scale is not None:
            coefficients = coefficients * scale[:, None]
        return combine(s, update(Op.ADD_GRADIENT, s, outs, coefficients, backend)).to(s.dtype)


def _gradients(leaves: list[Tensor]) -> list[Tensor | None]:
    # asked for 2,000 at once, so the quick questions come first
    return [x.grad if x.is_leaf and (x.requires_grad or not is_frozen(x)) else None for x in leaves]


def prox_(
    params: Params,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    step: Any = 1.0,
    mask: Any = None,
    anchor: Any = None,
    frozen: str = "count",
    backend: str | None = None,
) -> Tensor:
    """The proximal step of the penalty, in place, in one launch per device: x ← S(x, step·l1) / (1 + 2·step·l2).

    That is argmin_y l1‖y‖₁ + l2‖y‖₂² + ‖y - x‖²/(2·step), with S(x, t) = x - clip(x, -t, t): soft-thresholding, which
    gives exact zeros. After a gradient step of the loss alone with learning rate `step` it makes a step of proximal
    gradient descent (ISTA). With an anchor a: x ← a + S(x - a, step·l1) / (1 + 2·step·l2).

    Args:
      params, l1, l2, mask, anchor, frozen, backend: as in `penalty`. A frozen `nn.Parameter` is left alone, and
        counted in the value unless `frozen="skip"`.
      step: the step's length >= 0: a float or a 0-d tensor. Tensors are not read on the host: where step, l1 or l2 is
        one that is negative or NaN, the result is NaN.

    Returns:
      The penalty of what was read, before the step; a detached scalar.

    Raises:
      As `add_grad_`, about the parameters themselves. Nothing has been written then.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, section 6.5.

    >>> import torch
    >>> from fused_penalty.torch import prox_
    >>> w = torch.tensor([0.5, -2.0])
    >>> float(prox_([w], l1=1.0, l2=0.5)), w.tolist()
    (4.625, [0.0, -0.5])
    """
    s = select_to_write(params, l1, l2, mask, anchor, frozen)
    step = check_scalar("step", step)
    backend = requested(backend)
    if not s.leaves:
        return zeros()
    return proximal_step(s, as_double(step, s.leaves[0].device), written(s), backend)


def proximal_step(s: Selection, step: Tensor, outs: list[Tensor | None], backend: str | None) -> Tensor:
    """`prox_` of a selection; step: a scalar or (n,), float64."""
    with torch.no_grad():
        check_writable(s, outs)
        return combine(s, update(Op.PROX, s, outs, coefficients_of(Op.PROX, s, step), backend)).to(s.dtype)


def regularize_(
    params: Params,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    mask: Any = None,
    anchor: Any = None,
    frozen: str = "count",
    backend: str | None = None,
) -> Tensor:
    """Torch7's update of the parameters, as intended, in place: x ← x - clip(x, -l1, l1) - l2·x; one launch per device.

    Here l1 is a distance (values within it lose their whole magnitude) and l2 a shrink factor, half of the 2·l2 of
    the penalty's gradient: with plain SGD at learning rate r, `add_grad_(l1, l2)` before the step corresponds to
    `regularize_(r·l1, 2·r·l2)` beside it. The Lua it comes from wrote `p:mul(l2)`, which is itself in place, so taken
    literally it ended in -clip(x); this is what it meant.

    Arguments (`frozen` too) and errors are those of `prox_`. With an anchor a:
    x ← x - clip(x - a, -l1, l1) - l2·(x - a).

    Returns:
      The penalty of what was read, before the update; a detached scalar.

    >>> import torch
    >>> from fused_penalty.torch import regularize_
    >>> w = torch.tensor([0.5, -2.0])
    >>> float(regularize_([w], l1=1.0, l2=0.5)), w.tolist()
    (4.625, [-0.25, 0.0])
    """
    s = select_to_write(params, l1, l2, mask, anchor, frozen)
    backend = requested(backend)
    if not s.leaves:
        return zeros()
    with torch.no_grad():
        outs = written(s)
        check_writable(s, outs)
        coefficients = coefficients_of(Op.REGULARIZE, s)
        # the L2 term stays where it has to carry the NaN of a bad l1
        terms = (t if isinstance(a, float) else t | L2 for t, a in zip(s.groups.terms, s.groups.l1, strict=True))
        s = replace(s, groups=replace(s.groups, terms=tuple(terms)))
        return combine(s, update(Op.REGULARIZE, s, outs, coefficients, backend)).to(s.dtype)


def select_to_write(params: Params, l1: Any, l2: Any, mask: Any, anchor: Any, frozen: str = "count") -> Selection:
    """`select` for a call that writes: nothing for autograd to record, and FSDP's modules in their sharded state.

    After a forward pass FSDP2 may keep what it gathered as the parameters of the module (the root does, until the
    backward pass): a write there would be lost.
    """
    if isinstance(params, nn.Module) and "torch.distributed.fsdp" in sys.modules:
        from torch.distributed.fsdp import FSDPModule

        for module in params.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
    with torch.no_grad():
        return select(params, l1, l2, mask, anchor, frozen)


def written(s: Selection) -> list[Tensor | None]:
    """The leaves themselves, but for frozen parameters."""
    return [None if is_frozen(x) else x for x in s.params]
