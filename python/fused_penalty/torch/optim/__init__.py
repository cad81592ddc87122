"""torch.optim's optimizers with the penalty in the same pass: `SGD`, `Adam`, `AdamW`.

    optimizer = fused_penalty.torch.optim.AdamW(model.parameters(), lr=1e-3, l1=1e-6)

One launch per device reads every array once and writes it once: gradient, moments, weights, penalty and its value. With
l1 = l2 = 0 each is torch's own optimizer, and state dicts load both ways.
"""

from .adam import Adam, AdamW
from .penalized import Summary
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Summary"]
