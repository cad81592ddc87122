"""`SGD`, `Adam` and `AdamW` against a float64 oracle: every way in which the penalty enters, every flag and dtype."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from fused_penalty.torch.optim import SGD, Adam, AdamW
from tests.support.step_oracle import Oracle
from tests.torch_only.optim.cases import BACKENDS

SHAPES = [(7, 5), (), (0,), (1100,), (2, 3, 4)]
STEPS = 5
PENALTIES = ("prox", "grad", "decoupled")
MOMENTA: list[dict[str, Any]] = [
    {}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3}, {"momentum": 0.9, "nesterov": True},
]  # fmt: skip


def tensors(dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in SHAPES]


def compare(
    cls: Any, oracle_step: str, backend: str, options: dict[str, Any], ours: dict[str, Any], *, anchored: bool,
    dtype: torch.dtype = torch.float64, rtol: float = 1e-12,
) -> None:  # fmt: skip
    params = [torch.nn.Parameter(x) for x in tensors(dtype, 0)]
    anchors = tensors(dtype, 1)
    common = {k: v for k, v in ours.items() if k in ("weight_decay", "maximize", "l1", "l2", "penalty")}
    optimizer = cls(params, lr=0.05, anchor=anchors if anchored else None, backend=backend, **options, **common)
    oracles = [
        Oracle(p.detach().double().numpy().copy(), a.double().numpy() if anchored else 0.0, lr=0.05, **common)
        for p, a in zip(params, anchors, strict=True)
    ]
    extra = {"decoupled": True} if cls is AdamW else {}
    for t in range(STEPS):
        for p, g in zip(params, tensors(dtype, 10 + t), strict=True):
            p.grad = g
        value = sum(o.value() for o in oracles)
        for o, p in zip(oracles, params, strict=True):
            getattr(o, oracle_step)(p.grad.double().numpy(), **options, **extra)
        optimizer.step()
        np.testing.assert_allclose(
            float(optimizer.penalty), value, rtol=max(rtol, 1e-6 if dtype != torch.float64 else 0)
        )
    for p, o in zip(params, oracles, strict=True):
        np.testing.assert_allclose(p.detach().double().numpy(), o.x, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("options", MOMENTA, ids=str)
def test_sgd(backend: str, penalty: str, options: dict[str, Any]) -> None:
    for anchored, maximize, decay in itertools.product((False, True), (False, True), (0.0, 0.1)):
        ours = {"l1": 0.3, "l2": 0.2, "penalty": penalty, "maximize": maximize, "weight_decay": decay}
        compare(SGD, "sgd", backend, options, ours, anchored=anchored)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("cls", [Adam, AdamW])
def test_adam(backend: str, penalty: str, cls: Any) -> None:
    for anchored, maximize, decay, amsgrad in itertools.product(
        (False, True), (False, True), (0.0, 0.1), (False, True)
    ):
        ours = {"l1": 0.3, "l2": 0.2, "penalty": penalty, "maximize": maximize, "weight_decay": decay}
        options = {"amsgrad": amsgrad, "betas": (0.8, 0.95), "eps": 1e-3}
        compare(cls, "adam", backend, options, ours, anchored=anchored)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_types(backend: str, dtype: torch.dtype) -> None:
    """Computed in float32; the state of 16-bit parameters has their dtype, as torch.optim's has."""
    rtol = {torch.float32: 1e-5, torch.bfloat16: 8e-2, torch.float16: 1e-2}[dtype]
    ours = {"l1": 0.3, "l2": 0.2, "weight_decay": 0.0}
    for anchored in (False, True):
        compare(SGD, "sgd", backend, MOMENTA[1], ours, anchored=anchored, dtype=dtype, rtol=rtol)
        compare(AdamW, "adam", backend, {}, ours, anchored=anchored, dtype=dtype, rtol=rtol)
