"""`Adam` and `AdamW`: torch.optim's, with the penalty in the same pass."""

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


class Adam(Penalized, torch.optim.Adam):
    """torch.optim.Adam with the penalty in its step, in one pass. With m̂ and v̂ as there and D = √v̂ + eps,

        z = θ - lr·m̂/D;    θ ← S(z, lr·l1/D) / (1 + 2·lr·l2/D),    S(z, t) = z - clip(z, -t, t)

    The proximal step is made in Adam's own metric D, so l1 means what it means in `penalty`: a weight rests at zero
    exactly where |∂loss/∂θ| ≤ l1. An element that never had a gradient (v = 0) is left alone. With an anchor a it is
    θ - a that is pulled. With l1 = l2 = 0 it is torch.optim.Adam, and state dicts load both ways.

    Args:
      params, lr, betas, eps, weight_decay, amsgrad, foreach, maximize, capturable, fused, decoupled_weight_decay: As in
        torch.optim.Adam. foreach and fused choose nothing: there is one kernel.
      differentiable: True is refused.
      l1, l2: As in `fused_penalty.torch.penalty`. Scalars become the entries `l1` and `l2` of each parameter group that
        has none, which schedulers and sweeps can change.
      penalty: "prox" as above. "decoupled": the euclidean proximal step, S(z, lr·l1) / (1 + 2·lr·l2), of which AdamW's
        decay is the first order; it does not minimise loss + penalty. "grad": l1·sign(θ) + 2·l2·θ is added to the
        gradient, as torch.optim.Adam does with its weight decay.
      anchor, mask, model, backend: As in `fused_penalty.torch.attach`.
      max_grad_norm: Clip the gradients by their global norm, as `fused_penalty.torch.clip_grad_norm_`, within the step.
      decouple_lr: Give the proximal step the length lr/peak in place of lr, so that a strength does not depend on the
        learning rate, but follows its schedule. The peak is the rate that a group came with (its entry `peak_lr`), or
        the scheduler's `initial_lr` or `max_lr` where that is larger.

    Attributes:
      penalty: The penalty before the last step.
      summary: All that the last step found, a `Summary`.

    Raises:
      TypeError, ValueError: As in torch.optim.Adam and in `fused_penalty.torch.attach`.

    Source: Yun, Lozano, Yang, "Adaptive proximal gradient methods", NeurIPS 2021, arXiv 2007.07484.

    Example:
      >>> import torch
      >>> from fused_penalty.torch.optim import Adam
      >>> w = torch.nn.Parameter(torch.tensor([0.25, -2.0]))
      >>> optimizer = Adam([w], lr=0.5, l1=0.5)
      >>> w.sum().backward(); optimizer.step()
      >>> w.tolist(), float(optimizer.penalty)
      ([0.0, -2.25], 1.125)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
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
        torch.optim.Adam.__init__(  # AdamW, next in line for our AdamW, takes no decoupled_weight_decay
            self, params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )  # fmt: skip
        self._init_penalty(l1, l2, penalty, mask, anchor, max_grad_norm, decouple_lr, backend, model)

    def _kind(self, group: Mapping[str, Any]) -> Step:
        return Step.AMSGRAD if group["amsgrad"] else Step.ADAM

    def _state_of(self, group: Mapping[str, Any]) -> Mapping[StepRole, str]:
        names = {StepRole.FIRST: "exp_avg", StepRole.SECOND: "exp_avg_sq"}
        return {**names, StepRole.MAXIMUM: "max_exp_avg_sq"} if group["amsgrad"] else names

    def _begin(
        self, roster: Roster, bank: Bank, gradients: Gradients, made: Sequence[bool], ok: Tensor | None
    ) -> Columns:
        groups = self.param_groups
        length = roster.each([g["lr"] for g in groups])
        on_device = any(g["capturable"] or g["fused"] for g in groups)
        place = length.device if on_device else torch.device("cpu")
        count = bank.advance(gradients.moves, place, ok, all_move=gradients.all).to(length)
        count = count.clamp(min=1.0)  # those that have never moved are only read
        beta1, beta2 = (roster.each([g["betas"][k] for g in groups]) for k in (0, 1))
        decay = roster.each([g["weight_decay"] for g in groups])
        decoupled = roster.each([float(bool(g["decoupled_weight_decay"])) for g in groups])
        rate = length / (1 - beta1**count)
        return {
            "step_length": length,
            "rate": rate,
            "shrink": 1 - length * decay * decoupled,
            "decay": decay * (1 - decoupled),
            "keep": beta2,
            "rest": 1 - beta2,
            "take": 1 - beta1,
            "root": (1 - beta2**count).rsqrt(),
            "epsilon": roster.each([g["eps"] for g in groups]),
        }


class AdamW(Adam, torch.optim.AdamW):
    """torch.optim.AdamW with the penalty in its step: `Adam` with decoupled weight decay, z = (1 - lr·weight_decay)·θ -
    lr·m̂/D.

    Args:
      params, lr, betas, eps, amsgrad, maximize, foreach, capturable, differentiable, fused: As in `Adam`.
      weight_decay: As in torch.optim.AdamW: a decay beside l2 (both count), without the ½ and not in Adam's metric.
      l1, l2, penalty, anchor, mask, max_grad_norm, decouple_lr, model, backend: As in `Adam`.

    Raises:
      TypeError, ValueError: As in `Adam`.

    Source: As `Adam`; Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Example:
      >>> import torch
      >>> from fused_penalty.torch.optim import AdamW
      >>> w = torch.nn.Parameter(torch.tensor([0.25, -2.0]))
      >>> optimizer = AdamW([w], lr=0.5, weight_decay=0.0, l1=0.5)
      >>> w.sum().backward(); optimizer.step()
      >>> w.tolist()
      [0.0, -2.25]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
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
        Adam.__init__(
            self, params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
            l1=l1, l2=l2, penalty=penalty, anchor=anchor, mask=mask, max_grad_norm=max_grad_norm,
            decouple_lr=decouple_lr, model=model, backend=backend,
        )  # fmt: skip
