"""The formulas in plain torch: another name for `fused_penalty.torch.backends.reference`."""

from .torch.backends.reference import penalty, penalty_and_grad, prox, sums

__all__ = ["penalty", "penalty_and_grad", "prox", "sums"]
