"""A callback for the Trainer of Hugging Face transformers: `PenaltyCallback`.

from fused_penalty.transformers import PenaltyCallback
trainer = Trainer(model=model, args=arguments, callbacks=[PenaltyCallback(l1=1e-5)])
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ._core.errors import bad, describe
from ._core.strengths import as_float
from .torch.norms import clip_grad_norm_
from .torch.trainers import TrainerPenalty
from .torch.types import Anchor, Mask, Metric, Mode, Strength

__all__ = ["PenaltyCallback"]


class PenaltyCallback(TrainerPenalty, TrainerCallback):
    """Put the penalty into every step of the Trainer's optimizer, once however many batches it accumulates, and log it.

    Trainer clips gradients before any of its events, `on_pre_optimizer_step` included. So with `mode="grad"` the
    penalty's gradient is added within the step and is not clipped, as the Trainer's `weight_decay` is not. To clip both
    together, as if the penalty were in the loss, let the callback do it: `PenaltyCallback(..., max_grad_norm=1.0)` with
    `TrainingArguments(max_grad_norm=0.0)`. `mode="prox"` makes the proximal step after the optimizer's.

    Each of the Trainer's log entries with a training loss gets `penalty/value` (that of the last step, as `attach` has
    it), and from one launch of `stats` `penalty/l1_norm` (Σ|x|), `penalty/l2_norm` (√Σx²) and `penalty/zeros` (their
    share), of the parameters that count and around the anchor. They are in `state.log_history`, and in the `logs` of
    the callbacks that come later. The Trainer puts those that it makes itself for `report_to` first; so for TensorBoard
    set `report_to="none"` and give `callbacks=[PenaltyCallback(...), TensorBoardCallback()]`.

    Strengths are entries of the parameter groups: a checkpoint holds them, and they come back with it.

    Args:
      l1, l2, mode, metric, weight_decay, mask, anchor, backend: As in `fused_penalty.torch.attach`. Rules and anchors
        with names see those of the model.
      max_grad_norm: The limit of the norm of gradient and penalty together, of `mode="grad"`; None: not clipped here.

    Raises:
      ValueError: max_grad_norm is not a number > 0, or stands beside `mode="prox"`, whose gradient is the loss's alone;
        when training begins, TrainingArguments clip as well, or have `fp16` (gradients may be scaled at this event)
        or DeepSpeed (which steps by itself).
      TypeError, ValueError, RuntimeError: When training begins, as `attach`; and at each step, as `add_grad_`.

    Example:
      >>> import fused_penalty as fp
      >>> from fused_penalty.transformers import PenaltyCallback
      >>> callback = PenaltyCallback(l1=1e-5, weight_decay=fp.no_decay_on_norms_and_biases(0.1))
      >>> callback.handles  # one, from the beginning of the training on
      []
    """

    def __init__(
        self,
        l1: Strength = 0.0,
        l2: Strength = 0.0,
        *,
        mode: Mode = "grad",
        metric: Metric = "auto",
        weight_decay: Strength | None = None,
        mask: Mask | None = None,
        anchor: Anchor | None = None,
        max_grad_norm: float | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            l1, l2, mode=mode, metric=metric, weight_decay=weight_decay, mask=mask, anchor=anchor, backend=backend
        )
        self._limit = None if max_grad_norm is None else _limit(max_grad_norm, mode)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        **rest: Any,
    ) -> None:
        """Attach to the optimizer."""
        if args.deepspeed:
            raise bad(
                ValueError, "args", "DeepSpeed keeps gradients and steps to itself",
                "Add fused_penalty.torch.penalty to the loss in compute_loss",
            )  # fmt: skip
        if self._limit is not None and (args.fp16 or args.max_grad_norm > 0):
            what = "fp16=True" if args.fp16 else f"max_grad_norm={args.max_grad_norm}"
            remedy = "Use bf16=True, or leave clipping to it" if args.fp16 else "Set it to 0 there"
            raise bad(ValueError, "max_grad_norm", f"TrainingArguments have {what}", remedy)
        self.begin([optimizer], model)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **rest: Any
    ) -> None:
        """Clip the gradient and the penalty's together, if that is asked for."""
        if self._limit is not None:
            self.handles[0].add_grad_()
            clip_grad_norm_(model.parameters(), self._limit)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        logs: dict[str, float],
        **rest: Any,
    ) -> None:
        """Add the figures to what the Trainer logs of its training."""
        if "loss" in logs:
            found = {name: float(value) for name, value in self.figures().items()}
            logs.update(found)
            state.log_history[-1].update(found)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """Detach from the optimizer."""
        self.end()


def _limit(value: Any, mode: Mode) -> float:
    number = as_float(value)
    if number is None or not number > 0:
        raise bad(ValueError, "max_grad_norm", f"{describe(value)} is not a number > 0", "Give one, or None")
    if mode != "grad":
        raise bad(
            ValueError, "max_grad_norm", f"mode={mode!r} leaves the gradient as it is",
            "Let TrainingArguments(max_grad_norm=...) clip it",
        )  # fmt: skip
    return number
