"""Whether torch runs plainly, or a compiler, a transform or a tracing mode is active."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def is_plain() -> bool:
    """True in eager mode without any transform: no compile, no trace, no functorch level, no tracing mode."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
    )


def tell_compiler() -> None:
    """Where torch.compile traces: have it read what compiled.py tells it. Before the first call of what that marks."""
    if torch.compiler.is_compiling():
        from . import compiled  # noqa: F401
