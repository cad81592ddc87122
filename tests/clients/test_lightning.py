"""`fused_penalty.lightning.PenaltyCallback`, and the penalty in Lightning without it: equal to their naive twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed (make clients)")

from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy

from fused_penalty.lightning import PenaltyCallback
from fused_penalty.torch import attach, penalty, stats

from .small import data_loss, naive_run, same, sgd, small
from .twins import L1, L2, RATE, STEPS


class Model(pl.LightningModule):
    """`how`: where the penalty is. Of `halves`, each batch has the half of the rows that it names."""

    def __init__(self, how: str = "callback", optimizer_of: Any = sgd, halves: bool = False) -> None:
        super().__init__()
        self.net, self.how, self.optimizer_of, self.halves = small(), how, optimizer_of, halves

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        rows = slice(int(batch) * 8, int(batch) * 8 + 8) if self.halves else slice(None)
        loss = data_loss(self.net, rows)
        return loss + penalty(self.net, L1, L2) if self.how == "loss" else loss

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_of(self.parameters())
        if self.how == "attach":
            attach(optimizer, L1, L2)
        return optimizer


class Log(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        self.rows.append(metrics)


def fit(folder: Path, model: Any, *callbacks: Any, batches: int = 1, epochs: int = STEPS, **settings: Any) -> Any:
    quiet = {f"enable_{what}": False for what in ("checkpointing", "progress_bar", "model_summary")}
    settings = quiet | {"logger": False, "accelerator": "cpu"} | settings
    ckpt_path = settings.pop("ckpt_path", None)
    trainer = pl.Trainer(
        max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), log_every_n_steps=1, **settings
    )
    trainer.fit(model, torch.utils.data.DataLoader(list(range(batches)), batch_size=1), ckpt_path=ckpt_path)
    return model


@pytest.mark.parametrize("how", ["loss", "attach", "callback"])
def test_the_callback_comes_before_clipping(how: str, tmp_path: Path) -> None:
    """As a penalty in the loss does; what is attached without it does not."""
    clip = None if how == "attach" else 0.1
    callbacks = [PenaltyCallback(L1, L2)] if how == "callback" else []
    model = fit(tmp_path, Model(how), *callbacks, gradient_clip_val=clip)
    same(model.net, naive_run(clip))


def test_accumulation_counts_once(tmp_path: Path) -> None:
    callback = PenaltyCallback(L1, weight_decay=2 * L2)
    model = fit(
        tmp_path, Model(halves=True), callback, batches=2, accumulate_grad_batches=2, gradient_clip_val=0.1
    )  # fmt: skip
    same(model.net, naive_run(0.1))


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_that_are_scaled(fused: bool, tmp_path: Path) -> None:
    """A fused optimizer gets them as GradScaler has scaled them. An overflow in the first step skips it."""

    class Overflowing(Model):
        def training_step(self, batch: Any, i: int) -> torch.Tensor:
            loss = super().training_step(batch, i)
            return loss * float("inf") if self.trainer.global_step == 0 and not self.trainer.current_epoch else loss

    def run(how: str, *callbacks: Any) -> torch.nn.Module:
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        model = Overflowing(how, lambda params: torch.optim.SGD(params, lr=RATE, fused=fused))
        return fit(tmp_path, model, *callbacks, plugins=[precision]).net

    found = run("callback", PenaltyCallback(L1, L2))
    same(found, run("loss"), rtol=1e-3, atol=1e-4)
    with pytest.raises(AssertionError):
        same(found, run("nowhere"), rtol=1e-3, atol=1e-4)


def test_the_line_search_sees_the_penalty(tmp_path: Path) -> None:
    def lbfgs(params: Any) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(params, max_iter=4, line_search_fn="strong_wolfe")

    model = fit(tmp_path, Model("callback", lbfgs), PenaltyCallback(L1, L2), epochs=2)
    same(model.net, naive_run(None, lbfgs, steps=2), rtol=1e-4, atol=1e-5)


def test_manual_optimization_of_two_optimizers(tmp_path: Path) -> None:
    """One clips without the penalty, the other adds it before."""

    class Manual(Model):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return sgd(self.net[0].parameters()), sgd(self.net[2].parameters())

        def training_step(self, batch: Any, _: int) -> None:
            first, second = self.optimizers()
            for optimizer in (first, second):
                optimizer.zero_grad()
            self.manual_backward(data_loss(self.net))
            second.fused_penalty.add_grad_()
            self.clip_gradients(second, gradient_clip_val=0.1)
            first.step()
            second.step()

    def by_hand() -> torch.nn.Module:
        model = small()
        for _ in range(STEPS):
            model.zero_grad()
            data_loss(model).backward()
            for p in model.parameters():
                p.grad += L1 * p.detach().sign() + 2 * L2 * p.detach()
            torch.nn.utils.clip_grad_norm_(model[2].parameters(), 0.1)
            with torch.no_grad():
                for p in model.parameters():
                    p -= RATE * p.grad
        return model

    log = Log()
    model = fit(tmp_path, Manual(), PenaltyCallback(L1, L2), logger=log)
    same(model.net, by_hand())
    assert {"penalty/0/value", "penalty/1/zeros"} <= log.rows[0].keys()


def test_the_log(tmp_path: Path) -> None:
    """The penalty where the loss was taken, and what the parameters hold after the step."""
    log, rows = Log(), []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            rows.append({"penalty/value": float(penalty(module.net, L1, L2).detach())})

        def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
            rows[-1]["penalty/l1_norm"] = sum(float(p.detach().abs().sum()) for p in module.parameters())
            rows[-1]["penalty/l2_norm"] = sum(float(p.detach().square().sum()) for p in module.parameters()) ** 0.5

    fit(tmp_path, Model(), Watch(), PenaltyCallback(L1, L2), logger=log)
    assert len(log.rows) == STEPS
    for row, expected in zip(log.rows, rows, strict=True):
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_proximal_step_and_its_zeros(tmp_path: Path) -> None:
    log, callback = Log(), PenaltyCallback(0.5, L2, mode="prox")
    model = fit(tmp_path, Model(), callback, logger=log)
    zeros, n = stats(model).zeros.sum(), sum(p.numel() for p in model.parameters())
    assert log.rows[-1]["penalty/zeros"] == pytest.approx(float(zeros) / n)
    assert log.rows[-1]["penalty/zeros"] > 0.2
    assert log.rows[-1]["penalty/value"] == pytest.approx(float(callback.handles[0].penalty))


def test_an_optimizer_can_be_trained_again(tmp_path: Path) -> None:
    """Also after a training that was interrupted."""
    kept: list[Any] = []

    def one(params: Any) -> Any:
        kept.extend([] if kept else [sgd(params)])
        return kept[0]

    class Interrupted(Exception):
        pass

    class Interrupt(pl.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            raise Interrupted

    model, callback = Model("callback", one), PenaltyCallback(L1, L2)
    with pytest.raises(Interrupted):
        fit(tmp_path, model, callback, Interrupt())
    fit(tmp_path, model, callback)
    assert not hasattr(kept[0], "fused_penalty")
    same(model.net, naive_run())


def test_a_checkpoint_holds_the_strengths(tmp_path: Path) -> None:
    """As it holds the learning rate: the callback of the run that goes on gives others."""
    saving = pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, enable_version_counter=False)
    fit(tmp_path, Model(), PenaltyCallback(L1, L2), saving, epochs=2, enable_checkpointing=True)
    file = tmp_path / "epoch=1.ckpt"
    assert torch.load(file, weights_only=False)["optimizer_states"][0]["param_groups"][0]["l1"] == L1
    model = fit(tmp_path, Model(), PenaltyCallback(l1=1.0), ckpt_path=file)
    same(model.net, naive_run())


def test_a_strategy_that_steps_by_itself_is_refused(tmp_path: Path) -> None:
    class Engine(SingleDeviceStrategy):
        handles_gradient_accumulation = True

    with pytest.raises(ValueError, match=r"trainer: Engine keeps gradients and steps to itself\. Add .*training_step"):
        fit(tmp_path, Model(), PenaltyCallback(L1), strategy=Engine("cpu"), accelerator="auto")
