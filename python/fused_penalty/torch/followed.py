"""Writes in place under torch.func: a tensor that is being differentiated cannot be written, as nothing records it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from .._core.errors import bad
from .params import Selection


def is_functionalizing() -> bool:
    """Whether inside torch.func.functionalize, which has no rules for autograd Functions and ops that write."""
    if torch.compiler.is_compiling():
        return False
    interpreter = _functorch.peek_interpreter_stack()
    return interpreter is not None and interpreter.key() == _functorch.TransformType.Functionalize


def check_not_followed(s: Selection, outs: Sequence[Tensor | None]) -> None:
    """Raise for the first of `outs` whose derivative torch.func.grad, vjp, jvp or a dual level is about to take.

    Outside these transforms autograd's own marks tell (`writable.py`); inside compiled code torch has taken them apart.
    """
    if torch.compiler.is_compiling():
        return
    if is_functionalizing():
        raise bad(
            RuntimeError, s.argument, "torch.func.functionalize cannot follow the write of a custom op",
            "Use torch.compile or torch.export, which can, or functionalize the function around the call",
        )  # fmt: skip
    for i, out in enumerate(outs):
        if out is not None and _is_followed(out):
            raise bad(
                ValueError, s.argument, "torch.func or forward mode takes its derivative, and a write is not recorded",
                "Write outside of the transform, or to a detach()ed tensor", path=s.paths()[i],
            )  # fmt: skip


def _is_followed(t: Tensor) -> bool:
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(t).tangent is not None:
        return True
    while _functorch.is_functorch_wrapped_tensor(t):
        if _functorch.is_gradtrackingtensor(t) and t.requires_grad:
            return True
        t = _functorch.get_unwrapped(t)
    return False
