"""Optimizers whose step contains the penalty: `sgd`, `adam`, `adamw`. One custom call makes the whole step.

    optimizer = adamw(1e-3, l1=1e-5)
    state = optimizer.init(params)
    params, state, summary = optimizer.step(params, grads, state)

The step belongs into a jitted function that donates params and state: then nothing is copied.
"""

from .adam import AdamState, adam, adamw
from .optimizer import Optimizer, Summary
from .sgd import SgdState, sgd

__all__ = ["AdamState", "Optimizer", "SgdState", "Summary", "adam", "adamw", "sgd"]
