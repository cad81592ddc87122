"""In place, one launch per device: `add_grad_`, `prox_`, `regularize_`.

Each makes one pass over memory, returns the penalty of what it read, makes no temporary of the model's size (it copies
only leaves with gaps in memory), and raises before it has written anything. It bumps autograd's version counters: a
backward pass that still needs an old value raises instead of using the new one.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

from .._core.operations import Op
from .._core.plan import L2
from .._core.strengths import check_flag, l2_of
from .params import Selection, is_frozen, select, zeros
from .scalars import as_double, check_scalar
from .strengths import coefficients_of, requested, value_of
from .types import Anchor, Frozen, Mask, Params, Step, Strength
from .updates import update
from .writable import check_writable


def add_grad_(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    weight_decay: Strength | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    frozen: Frozen = "count",
    backend: str | None = None,
    create: bool = False,
) -> Tensor:
    """Add the penalty's gradient to `.grad`, in place: p.grad += l1·sign(p) + 2·l2·p, in one launch per device.

    Call it after `loss.backward()` (and after `scaler.unscale_(optimizer)` under GradScaler). It replaces a penalty in
    the loss, whose backward pass costs some microseconds per tensor and a second buffer for the gradients. Where
    gradients accumulate over several backward passes, call it once, before the step.

    A parameter without `.grad` counts but gets none, as with torch.optim's weight decay; `create=True` makes a
    gradient for it. A frozen `nn.Parameter` is left alone; it counts in the value unless `frozen="skip"`.

    Args:
      params: As in `penalty`, but float8 leaves, whose gradients cannot be written, must be masked, frozen or without
        `.grad`.
      l1, l2, weight_decay, mask, anchor, frozen, backend: As in `penalty`.
      create: Whether to make `.grad` where there is none.

    Returns:
      The penalty of params, a detached scalar: float32, or float64 if any selected leaf is float64.

    Raises:
      TypeError, ValueError: As in `penalty_and_grad`; or a gradient is sparse, or not of its leaf's dtype, shape and
        device; or tensors share elements, are expanded, are inference tensors outside inference mode, or are results of
        recorded operations.
      RuntimeError: As in `penalty`. Nothing has been written when an error is raised.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import add_grad_
      >>> w = torch.tensor([1.0, -2.0], requires_grad=True)
      >>> (3 * w).sum().backward()
      >>> float(add_grad_([w], l1=1.0, l2=0.5)), w.grad.tolist()
      (5.5, [5.0, 0.0])
    """
    create = check_flag("create", create)
    s = select_to_write(params, l1, l2_of(l2, weight_decay), mask, anchor, frozen)
    backend = requested(backend)
    if not s.leaves:
        return zeros()
    return add_gradients(s, backend, create=create)


def add_gradients(s: Selection, backend: str | None, *, create: bool = False, scale: Tensor | None = None) -> Tensor:
    """`add_grad_` of a selection; `scale` (n,) multiplies what is added, not the penalty that is returned."""
    with torch.no_grad():
        outs = _gradients(s.params)
        made = _without_gradient(s.params, outs) if create else ()
        s.check_dtypes(i in made for i in range(len(outs)))
        check_writable(s, outs, gradients=True)
        for i in made:
            outs[i] = s.params[i].grad = torch.zeros_like(s.params[i])
        coefficients = coefficients_of(Op.ADD_GRADIENT, s)
        if scale is not None:
            coefficients = coefficients * scale[:, None]
        return value_of(s, update(Op.ADD_GRADIENT, s, outs, coefficients, backend))


def _gradients(leaves: list[Tensor]) -> list[Tensor | None]:
    # hot path: called for thousands of tensors, so the cheap attributes are tested first
    return [x.grad if x.is_leaf and (x.requires_grad or not is_frozen(x)) else None for x in leaves]


def _without_gradient(leaves: list[Tensor], grads: list[Tensor | None]) -> set[int]:
    """Where a gradient can be made."""
    return {i for i, x in enumerate(leaves) if grads[i] is None and x.is_leaf and not is_frozen(x)}


def prox_(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    weight_decay: Strength | None = None,
    step: Step = 1.0,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    frozen: Frozen = "count",
    backend: str | None = None,
) -> Tensor:
    """Make the proximal step of the penalty, in place, in one launch per device: x ← S(x, step·l1) / (1 + 2·step·l2).

    That is argmin_y l1‖y‖₁ + l2‖y‖₂² + ‖y - x‖²/(2·step), with S(x, t) = x - clip(x, -t, t): soft-thresholding, which
    gives exact zeros. After a gradient step of the loss alone with learning rate `step` it completes a step of proximal
    gradient descent (ISTA). With an anchor a: x ← a + S(x - a, step·l1) / (1 + 2·step·l2).

    Args:
      params: As in `penalty`, but float8 leaves, which cannot be written, must be masked or frozen.
      l1, l2, weight_decay, mask, anchor, backend: As in `penalty`.
      step: The length of the step, >= 0: a float or a 0-d tensor. Tensors are not read on the host: if step or a
        strength is a tensor that is negative or NaN, the result is NaN.
      frozen: As in `penalty`; a frozen `nn.Parameter` is left alone, but counts in the value unless this is "skip".

    Returns:
      The penalty of what was read, before the step: a detached scalar as `add_grad_` returns.

    Raises:
      TypeError, ValueError: As in `add_grad_`, but about the parameters themselves; or step is not a finite
        number >= 0.
      RuntimeError: As in `penalty`. Nothing has been written when an error is raised.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, section 6.5.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import prox_
      >>> w = torch.tensor([0.5, -2.0])
      >>> float(prox_([w], l1=1.0, l2=0.5)), w.tolist()
      (4.625, [0.0, -0.5])
    """
    s = select_to_write(params, l1, l2_of(l2, weight_decay), mask, anchor, frozen)
    length = check_scalar("step", step)
    backend = requested(backend)
    if not s.leaves:
        return zeros()
    return proximal_step(s, as_double(length, s.leaves[0].device), written(s), backend)


def proximal_step(s: Selection, step: Tensor, outs: list[Tensor | None], backend: str | None) -> Tensor:
    """`prox_` of a selection; step: a scalar or (n,), float64."""
    with torch.no_grad():
        check_writable(s, outs)
        return value_of(s, update(Op.PROX, s, outs, coefficients_of(Op.PROX, s, step), backend))


def regularize_(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    frozen: Frozen = "count",
    backend: str | None = None,
) -> Tensor:
    """Make Torch7's update of the parameters, in place, in one launch per device: x ← x - clip(x, -l1, l1) - l2·x.

    Here l1 is a distance (values within it lose their whole magnitude) and l2 a shrink factor, half of the 2·l2 of
    the penalty's gradient: with plain SGD at learning rate r, `add_grad_(l1, l2)` before the step corresponds to
    `regularize_(r·l1, 2·r·l2)` beside it. With an anchor a: x ← x - clip(x - a, -l1, l1) - l2·(x - a).

    Args:
      params, mask, anchor, frozen, backend: As in `prox_`.
      l1, l2: Distance and factor >= 0, given as in `penalty`. A tensor that is negative or NaN makes the result NaN.

    Returns:
      The penalty of what was read, before the update: a detached scalar as `add_grad_` returns.

    Raises:
      TypeError, ValueError, RuntimeError: As in `prox_`. Nothing has been written when an error is raised.

    Source: Torch7's callbacks in Lua, which wrote `p:mul(l2)`. That is itself in place, so that taken literally the
    update ended in -clip(x); this is what it meant.

    Example:
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
        return value_of(s, update(Op.REGULARIZE, s, outs, coefficients, backend))


def select_to_write(
    params: Params, l1: Strength, l2: Strength, mask: Mask | None, anchor: Anchor | None, frozen: str = "count"
) -> Selection:
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
    """The leaves themselves, None for frozen parameters."""
    return [None if is_frozen(x) else x for x in s.params]
