"""accelerate, timm and skorch: a short training run each, equal to its naive twin."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from fused_penalty.torch import add_grad_, attach, clip_grad_norm_, penalty

from .small import X, Y, data_loss, naive_run, same, small
from .twins import L1, L2, RATE, STEPS, naive_torch


@pytest.mark.parametrize("clip", [None, 0.1])
def test_accelerate(clip: float | None) -> None:
    """Batches are accumulated; the optimizer that is attached to is the one that accelerate wraps."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed (make clients)")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = small()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=RATE))
    handle = attach(optimizer, L1, L2)
    for half in [slice(0, 8), slice(8, 16)] * STEPS:
        with accelerator.accumulate(model):
            accelerator.backward(data_loss(model, half))
            if accelerator.sync_gradients and clip is not None:
                accelerator.unscale_gradients()
                handle.add_grad_()
                clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    same(model, naive_run(clip))


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


@pytest.mark.parametrize("how", ["loss", "callback"])
def test_skorch(how: str) -> None:
    """A callback before the one that clips, as a penalty in the loss."""
    skorch = pytest.importorskip("skorch", reason="skorch is not installed (make clients)")
    from skorch.callbacks import Callback, GradientNormClipping

    class Penalty(Callback):
        def on_grad_computed(self, net: Any, named_parameters: Any, **kw: Any) -> None:
            if how == "callback":
                add_grad_(named_parameters, L1, L2)

    class Net(skorch.NeuralNetRegressor):
        def get_loss(self, *args: Any, **kw: Any) -> Any:
            loss = super().get_loss(*args, **kw)
            return loss + penalty(self.module_, L1, L2) if how == "loss" else loss

    module = small()
    settings: dict[str, Any] = {
        "max_epochs": STEPS, "lr": RATE, "batch_size": -1, "train_split": None, "verbose": 0,
        "iterator_train__shuffle": False, "optimizer": torch.optim.SGD,
        "callbacks": [("penalty", Penalty()), ("clipping", GradientNormClipping(0.1))],
    }  # fmt: skip
    net = Net(copy.deepcopy(module), **settings).fit(np.asarray(X), np.asarray(Y))
    same(net.module_, naive_run(0.1))
