"""`attach`: the penalty in an optimizer's step, by step hooks, for all parameter groups in one launch per device."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from .._core.errors import bad
from .._core.strengths import l2_of
from .attached import KEY, Attached
from .types import Anchor, Mask, Metric, Mode, Strength


def attach(
    optimizer: Optimizer,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    mode: Mode = "grad",
    metric: Metric = "auto",
    weight_decay: Strength | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    model: nn.Module | None = None,
    backend: str | None = None,
) -> Attached:
    """Put the penalty into every `optimizer.step()`; nothing else in the training loop changes.

    `mode="grad"` adds the penalty's gradient to `.grad` before the step, like a weight decay with an L1 part
    (`add_grad_`). `mode="prox"` makes the proximal step after it, with each group's learning rate as step length
    (`prox_`): parameters become exactly zero. Frozen parameters, and those without `.grad` in a step, are left alone.

    After an adaptive optimizer the proximal step is made in that optimizer's metric D, by which it divides its own step
    (√v̂ + eps for Adam): θ ← S(θ, lr·l1/D) / (1 + 2·lr·l2/D). Only this minimises loss + penalty; the euclidean step
    after Adam ends elsewhere, with hardly a zero. Elements that never had a gradient are left alone. After momentum the
    step is as long as momentum makes it in the long run, lr·(1 - dampening)/(1 - momentum).
    `fused_penalty.torch.optim` does the same within the optimizer's step, in one pass.

    Strengths live in the parameter groups, as `weight_decay` does: scalars given here become the entries `l1` and `l2`
    of each group that has none, and every step reads the entries: state_dict saves them, and schedulers and sweeps
    can change them. Rules and trees stay with the handle; a group's own entry takes precedence. From the gradients of a
    group with `maximize=True` the penalty's gradient is subtracted.

    A fused optimizer under GradScaler (`optimizer.grad_scale`) gets the gradient scaled like the others, and no
    proximal step where GradScaler skips the step; with an optimizer that is not fused, call
    `scaler.unscale_(optimizer)` before `scaler.step(optimizer)`. Clipping comes before the step, so it does not see the
    penalty; to clip it too, call the handle's `add_grad_()` before you clip. `fused_penalty.lightning` and
    `fused_penalty.transformers` have callbacks that attach for you.

    With `optimizer.step(closure)` the gradients are made inside the step, perhaps several times (LBFGS). In
    `mode="grad"` the closure is then wrapped: the penalty's gradient is added after each evaluation, and the loss it
    returns includes the penalty if it is a tensor or a float. Anything else is returned unchanged.

    What survives:
      - `copy.deepcopy(optimizer)`, `pickle` and `torch.save(optimizer)` copy the penalty along; the copy's handle is
        `copy.fused_penalty`. A mask or rule that cannot be pickled (a lambda) makes pickling the optimizer fail.
      - `optimizer.load_state_dict(state)` takes the strengths that the state has and keeps those that it lacks. A
        tensor given as a strength takes the loaded value.
      - `optimizer.state_dict()` has the scalar strengths only: attach to a new optimizer, then load.
      - An optimizer built anew from the same groups has no penalty; attach to it.

    Args:
      optimizer: A torch.optim.Optimizer whose `step` runs hooks. Of accelerate's `AcceleratedOptimizer` and Lightning's
        optimizer the wrapped one is taken. Other wrappers that do not run their own hooks (Lookahead in
        timm and torch_optimizer) are refused: attach to the optimizer that they wrap.
      l1, l2: As in `penalty`; `by_path` needs an optimizer that knows names (see model). They may be tensors that
        change, or be assigned on the handle, for all groups without an entry of their own.
      weight_decay: In place of l2: l2 = weight_decay / 2. A number, which becomes the groups' entry `l2`, a rule or a
        tree; a tensor that changes is given as l2. (An entry `weight_decay` of a group is the optimizer's own.)
      mode: "grad" or "prox".
      metric: Of `mode="prox"`. "auto": the optimizer's own, for torch's Adam, AdamW, NAdam, RAdam, RMSprop and Adagrad
        and for optimizers of other libraries with Adam's state; the euclidean one for those that do not adapt their
        steps (SGD). "euclidean": S(θ, lr·l1) / (1 + 2·lr·l2) after any optimizer, whatever its momentum.
      mask, anchor, backend: As in `penalty`, for the list of all groups' parameters. An anchor with names (a Module,
        a mapping, a state_dict) needs an optimizer that knows names, too.
      model: The Module whose parameters the optimizer has, which names them for rules, trees and anchors and tells
        `by_type` their modules. Without it they have the names of an optimizer that was built from
        `named_parameters()`, or none.

    Returns:
      A handle with `.remove()`, `.add_grad_()`, `.stats()`, `.l1`, `.l2` and `.penalty`, the penalty at the last step;
      also `optimizer.fused_penalty`.

    Raises:
      TypeError: The optimizer never runs hooks, or as in `add_grad_`, here and at each step.
      ValueError: The mode is unknown, no strength is given, the optimizer has a penalty already, a rule or an anchor
        needs names or modules that are not known, the model lacks one of the optimizer's parameters, a group has no
        learning rate for `mode="prox"`, its metric is not known, or as in `add_grad_`.
      RuntimeError: As in `penalty`.

    Source: For the metric, Yun, Lozano, Yang, "Adaptive proximal gradient methods", NeurIPS 2021, arXiv 2007.07484.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import attach
      >>> w = torch.nn.Parameter(torch.tensor([0.75, -2.0]))
      >>> optimizer = torch.optim.SGD([w], lr=0.5)
      >>> handle = attach(optimizer, l1=1.0, mode="prox")
      >>> w.sum().backward(); optimizer.step()
      >>> w.tolist(), float(handle.penalty), optimizer.param_groups[0]["l1"]
      ([0.0, -2.0], 2.75, 1.0)
    """
    if mode not in ("grad", "prox"):
        raise bad(ValueError, "mode", f"{mode!r} is unknown", 'Use "grad" or "prox"')
    optimizer = _that_runs_hooks(optimizer)
    if KEY in vars(optimizer):
        raise bad(
            ValueError, "optimizer", "it has a penalty already, and a second one would be added to it",
            f"Call .remove() on the first handle (optimizer.{KEY}), or assign its l1 and l2",
        )  # fmt: skip
    return Attached(optimizer, l1, l2_of(l2, weight_decay), mode, metric, mask, anchor, backend, model)


def _that_runs_hooks(optimizer: Any) -> Optimizer:
    """The optimizer itself, or the one that it forwards steps and hooks to.

    torch marks a step that runs the hooks (`hooked`), on the class of each instance that it has initialised. A wrapper
    that skips this has a step which only calls another one.
    """
    if isinstance(optimizer, Optimizer) and getattr(type(optimizer).step, "hooked", False):
        return optimizer
    name, inner = type(optimizer).__name__, _wrapped(optimizer)
    if inner is not None:
        hooks = getattr(optimizer, "_optimizer_step_pre_hooks", None)
        forwards = hooks is not None and hooks is getattr(inner[1], "_optimizer_step_pre_hooks", None)  # Lightning's
        if forwards or name == "AcceleratedOptimizer":
            return _that_runs_hooks(inner[1])
    if isinstance(optimizer, Optimizer):
        what, remedy = f"the step of {name} never runs hooks", "Use one whose class calls Optimizer.__init__"
    else:
        what, remedy = f"{name} is not a torch.optim.Optimizer", "Give one"
    if inner is not None:
        remedy = f"Attach to the one that it wraps: attach(optimizer.{inner[0]}, ...)"
    raise bad(TypeError, "optimizer", what, remedy)


def _wrapped(optimizer: Any) -> tuple[str, Optimizer] | None:
    """The optimizer inside a wrapper, and the attribute that has it."""
    attributes = getattr(optimizer, "__dict__", {})
    found = [(k, v) for k, v in attributes.items() if isinstance(v, Optimizer) and v is not optimizer]
    if not found:
        return None
    name, inner = found[0]
    public = name.lstrip("_")  # Lightning and timm keep it as `_optimizer`, `_base_optimizer`
    return (public if getattr(optimizer, public, None) is inner else name), inner
