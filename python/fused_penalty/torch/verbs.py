"""The penalty and its gradient: `penalty`, `penalty_and_grad`."""

from __future__ import annotations

import torch
from torch import Tensor

from .._core.operations import Op
from .._core.strengths import l2_of
from . import ops
from .devices import Part, on_each_device
from .params import Selection, is_frozen, select, zeros
from .strengths import coefficients_of, requested, value_of
from .summaries import sums_of
from .types import Anchor, Frozen, Mask, Params, Strength

__all__ = ["penalty", "penalty_and_grad"]


def penalty(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    weight_decay: Strength | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    frozen: Frozen = "count",
    backend: str | None = None,
) -> Tensor:
    """Compute the elastic-net penalty P = Σ_i ( l1_i·Σ|x_i| + l2_i·Σx_i² ), in one launch per device.

    Differentiable to any order in params, strengths and anchor, in reverse and forward mode; works under
    torch.compile(fullgraph=True), torch.func, autocast and inference_mode. A frozen parameter (an `nn.Parameter`
    that does not require grad) gets no gradient; it counts unless `frozen="skip"`.

    Args:
      params: Tensors of any shape and strides, of dtype float16, bfloat16, float32, float64, float8_e4m3fn or
        float8_e5m2: a Module, a mapping or an iterable (see the module's text).
      l1, l2: Strengths >= 0: a scalar, a 0-d tensor (may be learned), a mapping from names or leading parts of
        names to these (a list for a list), or a rule: `fused_penalty.by_path`, `by_leaf`, `by_type`,
        `no_decay_on_norms_and_biases`. A static 0 removes its term from value and gradient.
      weight_decay: In place of l2, with the ½ that its name implies elsewhere: l2 = weight_decay / 2.
      mask: A bool, a mapping or list of bools, paired as strengths are, a rule with bools, or a function of params that
        returns one of these; False leaves a leaf out.
      anchor: Tensors that pair with params; the penalty is then that of x - anchor. Both have names (a Module, a copied
        state_dict, ...: other entries are ignored), or both are lists.
      frozen: "count", or "skip" to leave frozen parameters out, as a mask would: when a head is fine-tuned or LoRA
        trained, the base would drown the value.
      backend: "cuda", "cpu", "triton", "reference" or None, which chooses the best one for each device.

    Returns:
      A scalar on the first leaf's device: float32, or float64 if any selected leaf is float64. 0.0 on the CPU if no
      leaf is selected.

    Raises:
      TypeError: A selected leaf is not a dense tensor of these dtypes with memory of its own (a view of FSDP1 and
        a placeholder of ZeRO-3 are not), or a strength or mask entry has a wrong type.
      ValueError: A static strength is negative or not finite, l2 and weight_decay are both given, trees do not match,
        two leaves have one dotted name, an anchor lacks a name, or only one side has names, the backend is unknown, a
        DTensor is placed as Partial, or the lists differ from rank to rank.
      RuntimeError: The backend is not available; `fused_penalty.backends()` says why.

    Source: Zou & Hastie, "Regularization and variable selection via the elastic net", 2005 (without the ½).

    Example:
      >>> import torch
      >>> from fused_penalty.torch import penalty
      >>> params = {"w": torch.tensor([0.5, -1.2, 0.8]), "b": torch.tensor([0.2, -0.1])}
      >>> round(float(penalty(params, l1={"w": 0.01, "b": 0.005}, l2={"w": 0.001, "b": 0.0005})), 6)
      0.028855
    """
    s = select(params, l1, l2_of(l2, weight_decay), mask, anchor, frozen)
    backend = requested(backend)
    if not s.leaves:
        return zeros()
    return value_of(s, sums_of(s, backend))


def penalty_and_grad(
    params: Params,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    *,
    weight_decay: Strength | None = None,
    mask: Mask | None = None,
    anchor: Anchor | None = None,
    frozen: Frozen = "count",
    backend: str | None = None,
) -> tuple[Tensor, list[Tensor | None] | dict[str, Tensor | None]]:
    """Compute the penalty and its gradient l1_i·sign(x_i) + 2·l2_i·x_i in one launch per device: one read, one write.

    Nothing is recorded for autograd: value and gradients are detached.

    Args:
      params: As in `penalty`, but float8 leaves, whose gradients cannot be written, must be masked or frozen.
      l1, l2, weight_decay, mask, anchor, backend: As in `penalty`.
      frozen: As in `penalty`; with "count" frozen parameters count in P, but get no gradient.

    Returns:
      (P, gradients): a list for an iterable, a dict by name for a Module, a mapping or (name, tensor) pairs.
      Each gradient has the shape and dtype of its leaf (and its strides, if these are dense), computed in
      float32 or wider and rounded once. None for masked leaves and frozen parameters.

    Raises:
      TypeError: A selected leaf that is not frozen is float8, or as in `penalty`.
      ValueError, RuntimeError: As in `penalty`.

    Example:
      >>> import torch
      >>> from fused_penalty.torch import penalty_and_grad
      >>> value, grads = penalty_and_grad([torch.tensor([0.0, -2.0])], l1=1.0, l2=0.5)
      >>> float(value), grads[0].tolist()
      (4.0, [0.0, -3.0])
    """
    s = select(params, l1, l2_of(l2, weight_decay), mask, anchor, frozen)
    backend = requested(backend)
    chosen: dict[int, Tensor] = {}
    value = zeros()
    if s.leaves:
        with torch.no_grad():
            total, chosen = _gradients(s, backend)
            value = value_of(s, total)
    grads = [chosen.get(i) for i in range(len(s.all.tensors))]
    return value, grads if s.all.keys is None else dict(zip(s.all.keys, grads, strict=True))


def _gradients(s: Selection, backend: str | None) -> tuple[Tensor, dict[int, Tensor]]:
    """S, and the gradients by position in params."""
    frozen = [is_frozen(x) for x in s.params]
    s.check_dtypes(not f for f in frozen)
    coefficients = coefficients_of(Op.GRADIENT, s)
    chosen: dict[int, Tensor] = {}

    def launch(part: Part) -> Tensor:
        live = [k for k, still in enumerate(part.pick(frozen)) if not still]
        mine, terms = part.rows(coefficients), list(part.terms)
        total: Tensor
        total, found = ops.gradients(part.xs, part.anchors, mine, terms, live, backend or "")
        for i, g in zip((part.index[k] for k in live), found, strict=True):
            chosen[s.index[i]] = g if s.shards is None else s.shards.wrap(i, g)
        return total

    return on_each_device(Op.GRADIENT, s, launch), chosen
