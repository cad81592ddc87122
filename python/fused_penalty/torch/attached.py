"""What `attach` puts into an optimizer: the hooks of its step, and what makes them survive a copy."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .._core.errors import bad
from .adaptive import step_in_metric
from .group_strengths import GroupStrengths
from .inplace import add_gradients, proximal_step, select_to_write
from .metrics import reach, rule_of
from .origins import Origins, check_named
from .params import Selection, is_frozen
from .strengths import requested, spread
from .summaries import Stats, described
from .types import Anchor, Mask, Mode, Strength

KEY = "fused_penalty"  # of the hooks, and the optimizer's attribute that is the handle

# torch.optim.Optimizer keeps its hooks in these. Accessed directly, since torch has no call for what is to be copied.
HOOKS = {
    "_optimizer_step_pre_hooks": "_before",
    "_optimizer_step_post_hooks": "_after",
    "_optimizer_load_state_dict_pre_hooks": "_before_load",
    "_optimizer_load_state_dict_post_hooks": "_after_load",
}


class Attached:
    """The handle that `attach` returns; also `optimizer.fused_penalty`.

    Attributes:
      penalty: The penalty at the last step, a detached scalar; None before the first. In `mode="grad"` it is of the
        parameters before the step, where the loss was taken; in `mode="prox"` of what the proximal step began with.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        l1: Strength,
        l2: Strength,
        mode: Mode,
        metric: str,
        mask: Mask | None,
        anchor: Anchor | None,
        backend: str | None,
        model: nn.Module | None,
    ) -> None:
        self._origins = Origins(model)
        self.penalty: Tensor | None = None
        anchor = list(anchor) if isinstance(anchor, Iterator) else anchor  # every step reads it
        self._optimizer, self._mode, self._mask, self._anchor, self._backend = optimizer, mode, mask, anchor, backend
        self._strengths = GroupStrengths(optimizer, l1, l2)
        self._metric = rule_of(optimizer, metric) if mode == "prox" else None
        self._euclidean = metric == "euclidean"
        self._step: FrameType | None = None  # the running call of the outermost step
        self._added = False  # whether the coming step finds the penalty's gradient added
        self._select()  # bad arguments raise here, not in the first step
        self._check()
        requested(backend)
        self._strengths.write()
        for where, method in HOOKS.items():
            if (hooks := getattr(optimizer, where, None)) is not None:  # some wrappers have none for load_state_dict
                hooks[KEY] = getattr(self, method)
        vars(optimizer)[KEY] = self
        vars(optimizer)["__getstate__"] = self._optimizer_state

    @property
    def l1(self) -> Strength:
        """The l1 that was given to `attach`. Assign it to change all groups that had no entry of their own then."""
        return self._strengths.given["l1"]

    @l1.setter
    def l1(self, value: Strength) -> None:
        self._strengths.give("l1", value)

    @property
    def l2(self) -> Strength:
        """The same for l2."""
        return self._strengths.given["l2"]

    @l2.setter
    def l2(self, value: Strength) -> None:
        self._strengths.give("l2", value)

    def add_grad_(self) -> None:
        """Add the penalty's gradient now; the coming step will not add it again.

        For what must see it before the step, such as clipping. Under GradScaler call `scaler.unscale_(optimizer)`
        before it. Every call adds once more, so it belongs behind the backward pass that ends a step's accumulation.

        Raises:
          ValueError: The handle is of `mode="prox"`, or as in `add_grad_`.
          TypeError, RuntimeError: As in `add_grad_`.

        Example:
          >>> import torch
          >>> from fused_penalty.torch import attach, clip_grad_norm_
          >>> w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
          >>> optimizer = torch.optim.SGD([w], lr=1.0)
          >>> handle = attach(optimizer, l2=0.5)
          >>> (0 * w).sum().backward()
          >>> handle.add_grad_(); norm = clip_grad_norm_([w], 1.0); optimizer.step()
          >>> float(norm), [round(x, 3) for x in w.tolist()]
          (5.0, [2.4, -3.2])
        """
        if self._mode != "grad":
            raise bad(
                ValueError, "mode", 'a penalty of mode="prox" has no gradient to add', 'Attach with mode="grad"'
            )  # fmt: skip
        self._strengths.write()
        self._check()
        self._add()
        self._added = True

    def stats(self) -> Stats:
        """Compute the `stats` of the parameters that the penalty counts, around its anchor, in one launch per device.

        Raises:
          TypeError, ValueError, RuntimeError: As in `stats`.
        """
        return described(self._select()[0], requested(self._backend))

    def remove(self) -> None:
        """Take hooks and strengths out of the optimizer, which can then be given to `attach` again."""
        if vars(self._optimizer).get(KEY) is not self:
            return
        for where in HOOKS:
            getattr(self._optimizer, where, {}).pop(KEY, None)
        del vars(self._optimizer)[KEY], vars(self._optimizer)["__getstate__"]
        self._strengths.erase()

    def _optimizer_state(self) -> dict[str, Any]:
        """`Optimizer.__getstate__` leaves the hooks out, so a copied or unpickled optimizer would silently lose the
        penalty. Ours are included, as methods of a handle that is copied with the optimizer."""
        hooks = {where: OrderedDict({KEY: getattr(self, method)}) for where, method in HOOKS.items()}
        state = type(self._optimizer).__getstate__(self._optimizer)
        return {**state, **hooks, KEY: self, "__getstate__": self._optimizer_state}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_step": None}

    def _select(self) -> tuple[Selection, list[int]]:
        """The parameters of all groups, and for each selected one the number of its group."""
        params = self._origins.params(self._optimizer)
        check_named(params, self._strengths.given, self._mask, self._anchor)
        l1, l2 = map(self._strengths.for_select, ("l1", "l2"))
        s = select_to_write(params, l1, l2, self._mask, self._anchor)
        numbers = [k for k, g in enumerate(self._optimizer.param_groups) for _ in g["params"]]
        owners = numbers if len(s.index) == len(numbers) else [numbers[i] for i in s.index]
        return replace(s, groups=self._strengths.of_leaves(s, owners)), owners

    def _check(self) -> None:
        """Raise for an entry of a group that cannot be used, before anything has been written."""
        self._strengths.of_groups()
        for k, g in enumerate(self._optimizer.param_groups if self._mode == "prox" else ()):
            if g.get("lr") is None:
                raise bad(
                    ValueError, "optimizer", f"parameter group {k} has no learning rate to make a proximal step with",
                    'Give it one (lr=), or use mode="grad"',
                )  # fmt: skip

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if not self._enters():
            return None
        self._strengths.write()
        self._check()
        if self._mode == "prox":
            return None
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._add_once()
            return None
        inner = self._with_penalty(closure)
        if len(args) > 1:
            return (args[0], inner, *args[2:]), kwargs
        return args, {**kwargs, "closure": inner}

    def _enters(self) -> bool:
        """Whether the hook belongs to the outermost step. torch puts hooks into the step of each class of which it has
        seen an instance, so `super().step()` may run them again, inside. After a step that raised, its frame is still
        noted, but not below us. Dynamo has no frames: in a compiled step the hooks run as often as torch runs them."""
        if torch.compiler.is_compiling():
            self._step = None
            return True
        step = _caller()
        below = step.f_back if self._step is not None else None
        while below is not None:
            if below is self._step:
                return False
            below = below.f_back
        self._step = step
        return True

    def _leaves(self) -> bool:
        """The same for the hook after the step; the one before it may have been compiled, and then noted no frame."""
        if torch.compiler.is_compiling() or self._step is None:
            return True
        if _caller() is not self._step:
            return False
        self._step = None
        return True

    def _with_penalty(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Wrap the closure: after every evaluation (LBFGS makes several) add the penalty's gradient, and the penalty to
        the loss, so that a line search sees the function whose gradient it has. A loss that is not a number (None, a
        dict of losses) is returned as it is."""

        def inner() -> Any:
            loss = closure()
            self._add_once()
            if self.penalty is None:
                return loss
            if isinstance(loss, Tensor) and loss.is_floating_point():
                return loss + self.penalty.to(loss)
            return loss + float(self.penalty) if isinstance(loss, float) else loss

        return inner

    def _add_once(self) -> None:
        """Add the gradient, unless `add_grad_` has done so since the last step."""
        if self._added:
            self._added = False
        else:
            self._add()

    def _add(self) -> None:
        s, owners = self._select()
        if not s.leaves:
            return
        scale = None
        signs = [-1.0 if g.get("maximize") else 1.0 for g in self._optimizer.param_groups]
        if min(signs) < 0:
            scale = _each(s, signs, owners)
        if (scaled := getattr(self._optimizer, "grad_scale", None)) is not None:
            scaled = scaled.to(s.leaves[0].device, torch.float64).expand(len(owners))
            scale = scaled if scale is None else scale * scaled
        self.penalty = add_gradients(s, requested(self._backend), scale=scale)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._leaves() and self._mode == "prox":
            self._prox()

    def _prox(self) -> None:
        s, owners = self._select()
        if not s.leaves:
            return
        outs = [None if is_frozen(x) or x.grad is None else x for x in s.params]
        overflow = getattr(self._optimizer, "found_inf", None)  # GradScaler: the step was not made
        backend = requested(self._backend)
        if self._metric is not None:
            self.penalty = step_in_metric(self._optimizer, self._metric, s, owners, outs, overflow, backend)
            return
        length = (lambda g: g["lr"]) if self._euclidean else reach
        rates = _each(s, [length(g) for g in self._optimizer.param_groups], owners)
        if overflow is not None:
            rates = torch.where(overflow.to(rates.device) > 0, 0.0, rates)
        self.penalty = proximal_step(s, rates, outs, backend)

    def _before_load(self, optimizer: Optimizer, state: Any) -> None:
        self._strengths.before_load()

    def _after_load(self, optimizer: Optimizer) -> None:
        self._strengths.after_load()


def _caller() -> FrameType:
    """The frame of the step that runs the hook: three calls up."""
    return sys._getframe(3)


def _each(s: Selection, of_group: list[Any], owners: Sequence[int]) -> Tensor:
    """The group's value for each leaf, float64."""
    values = [x if isinstance(x, Tensor) else float(x) for x in of_group]
    return spread(values, owners, s.leaves[0].device)
