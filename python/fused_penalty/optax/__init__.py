"""The penalty for optax: as a transformation beside an optimizer, or in the optimizer's own step.

    optax.chain(add_penalty_grads(l1=1e-5, l2=1e-4), optax.adam(1e-3))    as if the penalty were in the loss
    optax.chain(optax.scale_by_adam(), add_penalty_grads(l2=1e-4), optax.scale_by_learning_rate(1e-3))    as AdamW
    optax.chain(optax.sgd(0.1), proximal(l1=1e-4, learning_rate=0.1))    proximal descent
    proximal_adamw(1e-3, l1=1e-4)    exact zeros with Adam: the proximal step in Adam's own metric

A bare callable is a schedule, as everywhere in optax; rules over paths and leaves are objects (`by_path`, `by_leaf`).
"""

from .clipping import clip_by_global_norm
from .penalty import add_penalty_grads, proximal
from .state import PenaltyState
from .steps import proximal_adagrad, proximal_adamw, proximal_sgd

__all__ = [
    "PenaltyState",
    "add_penalty_grads",
    "clip_by_global_norm",
    "proximal",
    "proximal_adagrad",
    "proximal_adamw",
    "proximal_sgd",
]
