"""accelerate, timm and skorch: a short training run each, equal to its naive twin."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from fused_penalty.torch import attach, penalty

from .small import X, Y, data_loss, naive_run, same, small
from .twins import L1, L2, RATE, STEPS, naive_torch

def test_accelerate_optimizers_are_attached_to_what_they_wrap() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed (make clients)")
    accelerator = accelerate.Accelerator(cpu=True)
    model = small()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=RATE))
    handle = attach(optimizer, L1, L2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        accelerator.backward(data_loss(model))
        optimizer.step()
    same(model, naive_run())
    assert handle.penalty is not None


def test_timm_lookahead_is_refused_and_its_inner_optimizer_is_not() -> None:
    """timm's Lookahead never runs the hooks that it inherits."""
    optim = pytest.importorskip("timm.optim", reason="timm is not installed (make clients)")
    model = small()
    optimizer = optim.create_optimizer_v2(model, opt="lookahead_sgd", lr=RATE)
    with pytest.raises((TypeError, ValueError), match="base_optimizer") as refused:
        attach(optimizer, L1, L2)
    named = re.search(r"attach\(optimizer\.(\w+),", str(refused.value))  # timm's releases call it differently
    assert named is not None
    handle = attach(getattr(optimizer, named[1]), L1, L2)
    data_loss(model).backward()
    optimizer.step()
    assert handle.penalty is not None


def test_timm_model_with_an_anchor_in_channels_last() -> None:
    """Whatever memory order the anchor has, the penalty towards a copy of the model is 0, and so is its gradient."""
    timm = pytest.importorskip("timm", reason="timm is not installed (make clients)")
    model = timm.create_model("resnet10t", num_classes=2)
    anchor = copy.deepcopy(model).to(memory_format=torch.channels_last)
    value = penalty(model, L1, L2, anchor=anchor)
    value.backward()
    assert float(value) == 0
    assert all(float(p.grad.abs().max()) == 0 for p in model.parameters())


def test_timm_optimizer_with_attach() -> None:
    optim = pytest.importorskip("timm.optim", reason="timm is not installed (make clients)")

    def run(ours: bool) -> torch.nn.Module:
        model = small()
        optimizer = optim.create_optimizer_v2(model, opt="lamb", lr=1e-2, weight_decay=0.0)
        if ours:
            attach(optimizer, L1, L2)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = data_loss(model)
            (loss if ours else loss + naive_torch(model.parameters())).backward()
            optimizer.step()
        return model

    same(run(True), run(False))


def test_skorch() -> None:
    skorch = pytest.importorskip("skorch", reason="skorch is not installed (make clients)")

    class Net(skorch.NeuralNetRegressor):
        def get_loss(self, y_pred: Any, y_true: Any, *args: Any, **kw: Any) -> Any:
            return super().get_loss(y_pred, y_true, *args, **kw) + penalty(self.module_, L1, L2)

    module = small()
    settings: dict[str, Any] = {
        "max_epochs": STEPS, "lr": RATE, "batch_size": -1, "train_split": None, "verbose": 0,
        "iterator_train__shuffle": False, "optimizer": torch.optim.SGD,
    }  # fmt: skip
    net = Net(copy.deepcopy(module), **settings).fit(np.asarray(X), np.asarray(Y))
    same(net.module_, naive_run())
