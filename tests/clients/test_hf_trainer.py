"""`fused_penalty.transformers.PenaltyCallback`, and a penalty in `compute_loss`: equal to their naive twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
hf = pytest.importorskip("transformers", reason="transformers is not installed (make clients)")
pytest.importorskip("accelerate", reason="accelerate is not installed (make clients)")

from fused_penalty.torch import penalty, stats
from fused_penalty.transformers import PenaltyCallback

from .small import same
from .twins import L1, L2, STEPS, naive_torch


def gpt2() -> Any:
    """A tiny one with tied embeddings, which count once."""
    torch.manual_seed(0)
    config = hf.GPT2Config(
        vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return hf.GPT2LMHeadModel(config)


class Trainer(hf.Trainer):
    """`of` is the penalty of a batch's loss."""

    of: Any = staticmethod(lambda model: 0.0)

    def compute_loss(self, model: Any, inputs: Any, **kw: Any) -> Any:
        return super().compute_loss(model, inputs, **kw) + self.of(model)


def trainer(folder: Path, *callbacks: Any, batches: int = 1, clip: float = 0.0, **settings: Any) -> Trainer:
    tokens = torch.randint(0, 32, (4 * batches, 8), generator=torch.Generator().manual_seed(1))
    settings = {"optim": "sgd", "learning_rate": 1e-2, "logging_strategy": "no", "save_strategy": "no"} | settings
    arguments = hf.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=4, gradient_accumulation_steps=batches,
        max_grad_norm=clip, lr_scheduler_type="constant", report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
        **settings,
    )  # fmt: skip
    data = [{"input_ids": t, "labels": t} for t in tokens]
    return Trainer(model=gpt2(), args=arguments, train_dataset=data, callbacks=list(callbacks))


def naive(folder: Path, clip: float, batches: int) -> Any:
    """transformers adds the losses of accumulated batches up, so the penalty in each is a part of it."""
    training = trainer(folder, clip=clip, batches=batches)
    training.of = lambda model: naive_torch(model.parameters()) / batches
    training.train()
    return training.model


def test_the_penalty_in_the_loss(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    training.of = lambda model: penalty(model, L1, L2)
    training.train()
    same(training.model, naive(tmp_path, 0.0, 1))


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_accumulation_counts_once(clip: float, tmp_path: Path) -> None:
    callback = PenaltyCallback(L1, weight_decay=2 * L2, max_grad_norm=clip or None)
    training = trainer(tmp_path, callback, batches=2)
    training.train()
    same(training.model, naive(tmp_path, clip, 2))
    assert not hasattr(training.optimizer.optimizer, "fused_penalty")  # which may be trained again


def test_the_trainer_clips_the_gradient_of_the_loss_alone(tmp_path: Path) -> None:
    """As it does with its own weight decay."""
    model, training = gpt2(), trainer(tmp_path, PenaltyCallback(L1, L2), clip=0.1)
    training.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    batch = training.data_collator([training.train_dataset[i] for i in range(4)])
    for _ in range(STEPS):
        model.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        naive_torch(model.parameters()).backward()
        optimizer.step()
    same(training.model, model)


def test_the_proximal_step_and_the_log(tmp_path: Path) -> None:
    """The figures are in the history, and in the logs of later callbacks; not in those of an evaluation."""
    seen: list[dict[str, float]] = []

    class Later(hf.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
            seen.append(dict(logs))

    callback = PenaltyCallback(l1=1.0, mode="prox")
    training = trainer(tmp_path, callback, Later(), logging_strategy="steps", logging_steps=1)
    training.train()
    history = [row for row in training.state.log_history if "loss" in row]
    assert len(history) == STEPS
    assert history[-1]["penalty/value"] == pytest.approx(float(callback.handles[0].penalty))
    now, n = stats(training.model), sum(p.numel() for p in training.model.parameters())
    assert history[-1]["penalty/l1_norm"] == pytest.approx(float(now.abs.sum()), rel=1e-5)
    assert history[-1]["penalty/l2_norm"] == pytest.approx(float(now.square.sum().sqrt()), rel=1e-5)
    assert history[-1]["penalty/zeros"] == pytest.approx(float(now.zeros.sum()) / n)
    assert history[-1]["penalty/zeros"] > 0.2
    assert seen[STEPS - 1]["penalty/zeros"] == history[-1]["penalty/zeros"]
    assert all("loss" in row or "penalty/zeros" not in row for row in training.state.log_history)


def test_a_checkpoint_holds_the_strengths(tmp_path: Path) -> None:
    """As it holds the learning rate: the callback of the run that goes on gives others."""
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, PenaltyCallback(L1, L2), **saving).train()
    training = trainer(tmp_path, PenaltyCallback(l1=1.0), **saving)
    training.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    same(training.model, naive(tmp_path, 0.0, 1))


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ({"max_grad_norm": 0.0}, {}, r"max_grad_norm: 0\.0 is not a number > 0"),
        ({"max_grad_norm": 1.0, "mode": "prox"}, {}, r"max_grad_norm: mode='prox' leaves the gradient as it is"),
        ({"max_grad_norm": 1.0}, {"clip": 1.0}, r"TrainingArguments have max_grad_norm=1\.0\. Set it to 0 there"),
    ],
)
def test_what_is_refused(given: Any, settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, PenaltyCallback(L1, **given), **settings).train()


@pytest.mark.parametrize(("flag", "message"), [("fp16", "fp16=True. Use bf16"), ("deepspeed", "DeepSpeed keeps")])
def test_what_needs_a_gpu_is_refused(flag: str, message: str, tmp_path: Path) -> None:
    """TrainingArguments themselves refuse these on a CPU."""
    training = trainer(tmp_path, PenaltyCallback(L1, max_grad_norm=1.0))
    setattr(training.args, flag, True)
    with pytest.raises(ValueError, match=message):
        training.callback_handler.on_train_begin(training.args, training.state, training.control)
