"""The penalty of a pytree of JAX arrays: `penalty`, `penalty_and_grad`, `sums`, `stats`, `prox`,
`global_norm`.

Convention: no ½. The penalty is Σ_i ( l1_i·Σ|x_i| + l2_i·Σx_i² ) and its gradient l1·sign(x) + 2·l2·x, as in
Keras and treex; `optax.add_decayed_weights(wd)` is `l2 = wd / 2`.
"""

from .._core.backends import rows as _rows
from .norms import global_norm
from .summaries import Stats, Sums, stats, sums
from .verbs import penalty, penalty_and_grad, prox

__all__ = ["Stats", "Sums", "global_norm", "penalty", "penalty_and_grad", "prox", "stats", "sums"]

_rows("jax", None)  # registers the custom call: a program that `jax.export` made elsewhere needs it
