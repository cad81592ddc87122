"""Lightning, the HF Trainer, accelerate, timm and skorch: a short training run each, equal to its naive twin."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from fused_penalty.torch import add_grad_, attach, penalty

from .twins import L1, L2, RATE, STEPS, naive_torch

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(16, 3, generator=GENERATOR)
Y = X @ torch.tensor([[1.0], [0.0], [-1.0]])


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def data_loss(model: Any) -> torch.Tensor:
    return (model(X) - Y).square().mean()


def naive_run(clip: float | None = None) -> torch.nn.Module:
    """The loop as it is written by hand."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (data_loss(model) + naive_torch(model.parameters())).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def same(found: Any, expected: Any) -> None:
    for (name, p), (_, q) in zip(found.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=2e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("how", ["loss", "attach", "callback"])
def test_lightning(how: str, tmp_path: Path) -> None:
    """A callback before the optimizer's step comes before clipping, as a penalty in the loss does."""
    pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed (make clients)")
    clip = None if how == "attach" else 0.1

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = data_loss(self.net)
            return loss + penalty(self.net, L1, L2) if how == "loss" else loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=RATE)
            if how == "attach":
                attach(optimizer, L1, L2)
            return optimizer

    class Penalty(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            if how == "callback":
                add_grad_(module.net, L1, L2)

    quiet = {f"enable_{what}": False for what in ("checkpointing", "progress_bar", "model_summary")}
    trainer = pl.Trainer(
        max_epochs=STEPS, accelerator="cpu", gradient_clip_val=clip, callbacks=[Penalty()],
        default_root_dir=tmp_path, logger=False, **quiet,
    )  # fmt: skip
    model = Model()
    trainer.fit(model, torch.utils.data.DataLoader([0], batch_size=1))
    same(model.net, naive_run(clip))


@pytest.mark.parametrize("how", ["compute_loss", "callback"])
def test_hf_trainer(how: str, tmp_path: Path) -> None:
    """A tiny GPT-2 with tied embeddings, which count once. The callback adds the gradient once for each step, however
    many batches it accumulates."""
    hf = pytest.importorskip("transformers", reason="transformers is not installed (make clients)")
    pytest.importorskip("accelerate", reason="accelerate is not installed (make clients)")
    batches = 1 if how == "compute_loss" else 2
    tokens = torch.randint(0, 32, (4 * batches, 8), generator=torch.Generator().manual_seed(1))
    data = [{"input_ids": t, "labels": t} for t in tokens]

    def run(of: str) -> Any:
        torch.manual_seed(0)
        config = hf.GPT2Config(
            vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=1,
        )  # fmt: skip
        model = hf.GPT2LMHeadModel(config)

        class Trainer(hf.Trainer):
            def compute_loss(self, model: Any, inputs: Any, **kw: Any) -> Any:
                loss = super().compute_loss(model, inputs, **kw)
                if of == "naive":
                    return loss + naive_torch(model.parameters()) / batches
                return loss + penalty(model, L1, L2) if of == "compute_loss" else loss

        class Penalty(hf.TrainerCallback):
            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kw: Any) -> None:
                if of == "callback":
                    add_grad_(model, L1, L2)

        arguments = hf.TrainingArguments(
            output_dir=str(tmp_path / of), max_steps=STEPS, per_device_train_batch_size=4, learning_rate=1e-2,
            gradient_accumulation_steps=batches, max_grad_norm=0.0, lr_scheduler_type="constant", optim="sgd",
            report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no", seed=0,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Penalty()]).train()
        return model

    same(run(how), run("naive"))


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
