"""A callback for Lightning's Trainer: `PenaltyCallback`.

from fused_penalty.lightning import PenaltyCallback
trainer = Trainer(gradient_clip_val=1.0, callbacks=[PenaltyCallback(l1=1e-5)])
"""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:  # the same package under its older name
    from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from ._core.errors import bad
from .torch.trainers import TrainerPenalty

__all__ = ["PenaltyCallback"]


class PenaltyCallback(TrainerPenalty, Callback):
    """Put the penalty into every step of Lightning's optimizers, and log it.

    With `mode="grad"` its gradient is added once for each step, however many batches accumulate, and in automatic
    optimization before Lightning clips, so that a training equals one with the penalty in its loss. Lightning runs
    `on_before_optimizer_step` between unscaling and clipping. (With `precision="16-mixed"` a fused optimizer unscales
    in its step, where the penalty is then added; Lightning refuses to clip for those.) In manual optimization it is
    added in `optimizer.step()`: to clip it, call `optimizer.fused_penalty.add_grad_()` before `self.clip_gradients`.
    The line search of LBFGS sees the penalty. `mode="prox"` makes the proximal step after the optimizer's.

    Logged at Lightning's logging steps, after the step: `penalty/value` (that of the step, as `attach` has it), and
    from one launch of `stats` `penalty/l1_norm` (Σ|x|), `penalty/l2_norm` (√Σx²) and `penalty/zeros` (their share), of
    the parameters that count and around the anchor; with several optimizers `penalty/0/value` and so on.

    Strengths are entries of the parameter groups: schedulers may change them, and a checkpoint holds them.

    Args:
      l1, l2, mode, metric, weight_decay, mask, anchor, backend: As in `fused_penalty.torch.attach`. Rules and anchors
        with names see those of the LightningModule.

    Raises:
      TypeError, ValueError, RuntimeError: When training begins, as `attach`; and at each step, as `add_grad_`.
      ValueError: The strategy accumulates gradients and steps by itself, as DeepSpeed's does.

    Example:
      >>> import fused_penalty as fp
      >>> from fused_penalty.lightning import PenaltyCallback
      >>> callback = PenaltyCallback(l1=1e-5, weight_decay=fp.no_decay_on_norms_and_biases(0.1))
      >>> callback.handles  # one for each optimizer, from the beginning of the training on
      []
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the optimizers."""
        if trainer.strategy.handles_gradient_accumulation:
            raise bad(
                ValueError, "trainer", f"{type(trainer.strategy).__name__} keeps gradients and steps to itself",
                "Add fused_penalty.torch.penalty to the loss in training_step",
            )  # fmt: skip
        self.begin(trainer.optimizers, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Add the gradient, which Lightning clips next."""
        clipped = pl_module.automatic_optimization and not _unscales_itself(trainer, optimizer)
        if self._mode == "grad" and clipped:
            optimizer.fused_penalty.add_grad_()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, in the steps that Lightning logs."""
        if trainer._logger_connector.should_update_logs:
            pl_module.log_dict(self.figures())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detach from the optimizers."""
        self.end()


def _unscales_itself(trainer: Trainer, optimizer: Optimizer) -> bool:
    """Whether the gradients are still scaled by GradScaler: a fused optimizer's, until its step."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
