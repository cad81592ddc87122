"""The formulas in plain jnp: another name for `fused_penalty.jax.backends.reference`."""

from .jax.backends.reference import penalty, penalty_and_grad, prox, sums

__all__ = ["penalty", "penalty_and_grad", "prox", "sums"]
