"""What torch.compile meets in place of a step; read while Dynamo traces, like `fused_penalty.torch.compiled`."""

from __future__ import annotations

from typing import Any

import torch


@torch.compiler.disable(reason="fused_penalty: one launch makes the whole step; there is nothing to compile")
def make_step(optimizer: Any, max_grad_norm: Any) -> None:
    optimizer._make_step(max_grad_norm)
