"""`no_decay_on_norms_and_biases` beside the helpers that people know, on models of the libraries that have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fused_penalty as fp
from fused_penalty.torch import sums


def decayed(model: nn.Module, **kw: Any) -> set[str]:
    with torch.no_grad():
        return set(sums(model, mask=fp.no_decay_on_norms_and_biases(**kw)).paths)


@pytest.mark.parametrize("name", ["BertConfig", "GPT2Config", "LlamaConfig"])
def test_transformers(name: str) -> None:
    """transformers decays 1-d weights of no norm, too, of which these models have none."""
    hf = pytest.importorskip("transformers", reason="transformers is not installed (make clients)")
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "vocab_size": 32,
        "intermediate_size": 32,
    }
    config = getattr(hf, name)(**sizes)
    model = hf.AutoModel.from_config(config)
    trainer = hf.Trainer.get_decay_parameter_names
    names = {n for n, _ in model.named_parameters()}  # tied ones once, as here
    assert decayed(model) == set(trainer(None, model)) & names


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"])
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed (make clients)")
    from timm.optim import param_groups_weight_decay

    model = timm.create_model(name, num_classes=2)
    listed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    spared, its = param_groups_weight_decay(model, weight_decay=0.1, no_weight_decay_list=listed)
    assert (spared["weight_decay"], its["weight_decay"]) == (0, 0.1)
    ids = {id(p) for p in its["params"]}
    assert decayed(model, also=listed) == {n for n, p in model.named_parameters() if id(p) in ids}
