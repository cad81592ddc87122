"""`SGD`: torch.optim's, with the penalty in the same pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from ..._core.steps import Penalty, Step, StepRole
from ..steps import Columns
from ..types import Anchor, Mask, Strength
from .bank import Bank
from .penalized import Gradients, Penalized
from .roster import Roster


class SGD(Penalized, torch.optim.SGD):
    """torch.optim.SGD with the penalty in its step, in one pass: b ← μb + (1 - τ)g; u = b, or g + μb with nesterov;

        θ ← S(θ - lr·u, s·l1) / (1 + 2·s·l2),    s = lr·(1 - τ)/(1 - μ),    S(z, t) = z - clip(z, -t, t)

    that is proximal gradient descent: weights become exactly zero. s is the length of the step in the long run: a
    constant gradient g makes b = g·(1 - τ)/(1 - μ), so torch's momentum of 0.9 means steps ten times as long, and with
    lr in place of s the penalty would count a tenth. With an anchor a it is θ - a that is pulled. With l1 = l2 = 0 it
    is torch.optim.SGD, and state dicts load both ways.

    Args:
      params, lr, momentum, dampening, weight_decay, nesterov, maximize, foreach, fused: As in torch.optim.SGD. foreach
        and fused choose nothing: there is one kernel. Weight decay stays coupled, as there.
      differentiable: True is refused.
      l1, l2: As in `fused_penalty.torch.penalty`. Scalars become the entries `l1` and `l2` of each parameter group that
        has none, which schedulers and sweeps can change.
      penalty: "prox" as above; "decoupled" with s = lr; "grad" adds l1·sign(θ) + 2·l2·θ to the gradient.
      anchor, mask, model, backend: As in `fused_penalty.torch.attach`.
      max_grad_norm: Clip the gradients by their global norm, as `fused_penalty.torch.clip_grad_norm_`, within the step.
      decouple_lr: Give the proximal step the length lr/peak in place of lr, so that a strength does not depend on the
        learning rate, but follows its schedule. The peak is the rate that a group came with (its entry `peak_lr`), or
        the scheduler's `initial_lr` or `max_lr` where that is larger.

    Attributes:
      penalty: The penalty before the last step.
      summary: All that the last step found, a `Summary`.

    Raises:
      TypeError, ValueError: As in torch.optim.SGD and in `fused_penalty.torch.attach`.

    Source: Parikh & Boyd, "Proximal algorithms", 2014, sections 4.2 and 6.5.

    Example:
      >>> import torch
      >>> from fused_penalty.torch.optim import SGD
      >>> w = torch.nn.Parameter(torch.tensor([0.75, -2.0]))
      >>> optimizer = SGD([w], lr=0.5, l1=1.0)
      >>> w.sum().backward(); optimizer.step()
      >>> w.tolist(), float(optimizer.penalty)
      ([0.0, -2.0], 2.75)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        l1: Strength = 0.0,
        l2: Strength = 0.0,
        penalty: Penalty = "prox",
        anchor: Anchor | None = None,
        mask: Mask | None = None,
        max_grad_norm: float | Tensor | None = None,
        decouple_lr: bool = False,
        model: nn.Module | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize, foreach=foreach,
            differentiable=differentiable, fused=fused,
        )  # fmt: skip
        self._init_penalty(l1, l2, penalty, mask, anchor, max_grad_norm, decouple_lr, backend, model)

    def _kind(self, group: Mapping[str, Any]) -> Step:
        return Step.MOMENTUM if group["momentum"] else Step.SGD

    def _state_of(self, group: Mapping[str, Any]) -> Mapping[StepRole, str]:
        return {StepRole.FIRST: "momentum_buffer"} if group["momentum"] else {}

    def _begin(
        self, roster: Roster, bank: Bank, gradients: Gradients, made: Sequence[bool], ok: Tensor | None
    ) -> Columns:
        groups = self.param_groups
        length = roster.each([g["lr"] for g in groups])
        momentum = roster.each([g["momentum"] for g in groups])
        keep, take = momentum, 1 - roster.each([g["dampening"] for g in groups])
        # torch ignores dampening without momentum; a momentum of 1 or more never settles
        settles = (momentum > 0) & (momentum < 1)
        reach = torch.where(settles, take / (1 - momentum), 1.0)
        if any(made):  # the first momentum is the gradient itself
            new = torch.tensor(made, device=length.device)
            keep, take = torch.where(new, 0.0, keep), torch.where(new, 1.0, take)
        return {
            "step_length": length if self._penalty == "decoupled" else length * reach,
            "rate": length,
            "shrink": torch.ones_like(length),
            "decay": roster.each([g["weight_decay"] for g in groups]),
            "keep": keep,
            "take": take,
            "look": momentum * roster.each([float(bool(g["nesterov"])) for g in groups]),
        }
