"""The kinds of optimizers and the parameters that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fused_penalty.torch.optim import SGD, Adam, AdamW

BACKENDS = ["cpu", "reference"]
KINDS: list[tuple[Any, dict[str, Any]]] = [
    (SGD, {}), (SGD, {"momentum": 0.9}), (Adam, {}), (AdamW, {"amsgrad": True}),
]  # fmt: skip
EVERY = pytest.mark.parametrize(("cls", "options"), KINDS, ids=["SGD", "momentum", "Adam", "amsgrad"])
ON_EACH = pytest.mark.parametrize("backend", BACKENDS)


def param(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    p = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype))
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 100), dtype=dtype)
    return p
