"""`attach`: the penalty in an optimizer's step, by step hooks, for all parameter groups in one launch a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._core.errors import bad
from .._core.rules import ByPath
from .._core.strengths import group
from .inplace import add_gradients, proximal_step, select_to_write
from .params import Selection, is_frozen
from .scalars import as_double, check_scalar
from .strengths import requested


class Attached:
    """The handle that `attach` returns.

    Attributes:
      penalty: the penalty at the last step, of the parameters it read; a detached scalar, None before the first step.
      l1, l2: the strengths; assign to change them.
    """

    def __init__(self, optimizer: Optimizer, l1: Any, l2: Any, mode: str, mask: Any, anchor: Any, backend: Any) -> None:
        self.penalty: Tensor | None = None
        self.l1, self.l2 = l1, l2
        self._optimizer, self._mask, self._anchor, self._backend = optimizer, mask, anchor, backend
        self._select()  # bad arguments raise here, not in the first step
        if mode == "grad":
            self._hook = optimizer.register_step_pre_hook(self._before)
        else:
            self._hook = optimizer.register_step_post_hook(self._after)

    def remove(self) -> None:
        """Takes the hook out of the optimizer."""
        self._hook.remove()

    def _select(self) -> tuple[Selection, list[dict[str, Any]]]:
        """The parameters of all groups, and the group of each selected one."""
        groups = self._optimizer.param_groups
        params = [p for g in groups for p in g["params"]]
        owners = [g for g in groups for _ in g["params"]]
        names = [n for g in groups for n in g.get("param_names", ())]
        for argument, rule in (("l1", self.l1), ("l2", self.l2)):
            if isinstance(rule, ByPath) and len(names) < len(params):
                raise bad(
                    ValueError, argument, "by_path needs the parameters' names, which this optimizer does not know",
                    "Build it from model.named_parameters(), or give by_leaf or strengths in the parameter groups",
                )  # fmt: skip
        named = list(zip(names, params, strict=True)) if len(names) == len(params) else params
        s = select_to_write(named, self.l1, self.l2, self._mask, self._anchor)
        mine = [owners[i] for i in s.index]
        if any("l1" in g or "l2" in g for g in groups):
            s = replace(s, groups=group(len(s.leaves), *(_own_strengths(s, mine, k) for k in (0, 1))))
        return s, mine

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is None:
            self._add()
            return None
        inner = self._with_penalty(closure)
        if len(args) > 1:
            return (args[0], inner, *args[2:]), kwargs
        return args, {**kwargs, "closure": inner}

    def _with_penalty(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure makes the gradients itself, perhaps several times a step (LBFGS): ours come after each time, and
        the loss gets the penalty, so that a line search sees the function whose gradient it has."""

        def inner() -> Any:
            loss = closure()
            self._add()
            return loss if loss is None or self.penalty is None else loss + self.penalty.to(loss)

        return inner

    def _add(self) -> None:
        s, owners = self._select()
        if not s.leaves:
            return
        signs = [-1.0 if g.get("maximize") else 1.0 for g in owners]
        scale = torch.tensor(signs, dtype=torch.float64, device=s.leaves[0].device)
        if (scaled := getattr(self._optimizer, "grad_scale", None)) is not None:
            scale = scale * scaled.to(scale)
        self.penalty = add_gradients(s, requested(self._backend), scale=scale)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        s, owners = self._select()
        if not s.leaves:
            return
        device = s.leaves[0].device
        rates = torch.stack([as_double(check_scalar("lr", g["lr"]), device) for g in owners])
        if (overflow := getattr(optimizer, "found_inf", None)) is not None:  # GradScaler: the step was not made
            rates = torch.where(overflow.to(device) > 0, 0.0, rates)
        outs = [None if is_frozen(x) or x.grad is None else x for x in s.params]
        self.penalty = proximal_step(s, rates, outs, requested(self._backend))


def _own_strengths(s: Selection, owners: list[dict[str, Any]], k: int) -> list[Any]:
    """Strengths of the leaves: the parameter group's own entry before the one given to `attach`."""
    name, given = ("l1", s.groups.l1) if k == 0 else ("l2", s.groups.l2)
    return [
        check_scalar(name, g[name], path) if name in g else given[s.groups.of_leaf[i]]
        for i, (g, path) in enumerate(zip(owners, s.paths(), strict=True))
    ]


def attach(
    optimizer: Optimizer,
    l1: Any = 0.0,
    l2: Any = 0.0,
    *,
    mode: str = "grad",
    mask: Any = None,
    anchor: Any = None,
    backend: str | None = None,
) -> Attached:
    """Puts the penalty into every `optimizer.step()`: nothing else in the training loop changes.

    `mode="grad"` adds the penalty's gradient to `.grad` before the step, like a weight decay with an L1 part
    (`add_grad_`). `mode="prox"` makes the proximal step after it, with each group's learning rate as step length
    (`prox_`): parameters become exactly zero. Parameters without `.grad` are skipped, frozen ones too.

    Parameter groups may have entries `l1` and `l2` of their own, as they have `weight_decay`; a group with
    `maximize=True` has the gradient subtracted. A fused optimizer under GradScaler (`optimizer.grad_scale`) gets the
    gradient scaled like the others, and no proximal step where GradScaler skips the step; with an optimizer that is not
    fused call `scaler.unscale_(optimizer)` before `scaler.step(optimizer)`.

    With `optimizer.step(closure)` the gradients are made inside the step, perhaps several times (LBFGS). In
    `mode="grad"` the closure is then wrapped: the penalty's gradient is added after each evaluation, and the loss it
    returns includes the penalty.

    Args:
      optimizer: any torch.optim.Optimizer.
      l1, l2: as in `penalty`; `by_path` needs an optimizer made from `named_parameters()`. They may be tensors that
        change, or be assigned on the handle.
      mode: "grad" or "prox".
      mask, anchor, backend: as in `penalty`, for the list of all groups' parameters.

    Returns:
      A handle with `.remove()` and `.penalty`, the penalty at the last step.

    Raises:
      ValueError, TypeError: an unknown mode; by_path without names; as `add_grad_`.

    >>> import torch
    >>> from fused_penalty.torch import attach
    >>> w = torch.nn.Parameter(torch.tensor([0.75, -2.0]))
    >>> optimizer = torch.optim.SGD([w], lr=0.5)
    >>> handle = attach(optimizer, l1=1.0, mode="prox")
    >>> w.sum().backward(); optimizer.step()
    >>> w.tolist(), float(handle.penalty)
    ([0.0, -2.0], 2.75)
    """
    if mode not in ("grad", "prox"):
        raise bad(ValueError, "mode", f"{mode!r} is unknown", 'Use "grad" or "prox"')
    if not isinstance(optimizer, Optimizer):
        raise bad(TypeError, "optimizer", f"{type(optimizer).__name__} is no torch.optim.Optimizer", "Give one")
    return Attached(optimizer, l1, l2, mode, mask, anchor, backend)
