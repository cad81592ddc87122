"""The penalty of PyTorch parameters: `penalty`, `penalty_and_grad`, `sums`, `stats`, `global_norm`, and in place
`add_grad_`, `prox_`, `regularize_`, `clip_grad_norm_`, `attach`.

Convention: no ½. The penalty is Σ_i ( l1_i·Σ|x_i| + l2_i·Σx_i² ) and its gradient l1·sign(x) + 2·l2·x, as in
Keras and treex; `weight_decay=wd` of torch.optim is `l2 = wd / 2`.

`params` is an `nn.Module` (its parameters), a mapping, an iterable of tensors or of (name, tensor) pairs. In a
Module or mapping, leaves that share their elements in memory count once, under their first name: tied weights, and
views such as `w.t()` or `w.view(-1)`. In a list everything counts. Two leaves with one dotted name are an error.

An anchor with names (a Module, a mapping such as a copied `state_dict()`, (name, tensor) pairs) pairs with named
params by name, in any order, and its other entries are ignored; a list pairs with a list, by position. Other
combinations are refused.

DTensors (FSDP2, HSDP, tensor parallel) work in every verb: all ranks call it with the same list, each launches on its
own shards, one all-reduce makes the value global, and gradients are DTensors placed as their leaves.
"""

from .attached import Attached
from .hooks import attach
from .inplace import add_grad_, prox_, regularize_
from .norms import clip_grad_norm_, global_norm
from .summaries import Stats, Sums, stats, sums
from .verbs import penalty, penalty_and_grad

__all__ = [
    "Attached",
    "Stats",
    "Sums",
    "add_grad_",
    "attach",
    "clip_grad_norm_",
    "global_norm",
    "penalty",
    "penalty_and_grad",
    "prox_",
    "regularize_",
    "stats",
    "sums",
]
