"""Named parameter trees with the shapes of real models; tests use them, too."""

from __future__ import annotations

import math

import numpy as np

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


def gpt2(width: int = 768, layers: int = 12) -> Shapes:
    """GPT-2 124M: 148 tensors, 124,439,808 parameters."""
    shapes: Shapes = {"wte": (50257, width), "wpe": (1024, width)}
    for i in range(layers):
        block = {
            "ln_1.weight": (width,), "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,), "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (4 * width, width), "mlp.c_proj.bias": (width,),
        }  # fmt: skip
        shapes |= {f"h.{i}.{name}": shape for name, shape in block.items()}
    return shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def resnet50() -> Shapes:
    """ResNet-50 (torchvision's layout): 161 tensors, 25,557,032 parameters."""
    shapes: Shapes = {}

    def conv(name: str, out: int, inp: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (out, inp, kernel, kernel)
        norm = name.replace("conv", "bn") if "conv" in name else name[:-1] + "1"
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (out,)

    conv("conv1", 64, 3, 7)
    inp = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for b in range(blocks):
            name = f"layer{stage}.{b}"
            conv(f"{name}.conv1", width, inp, 1)
            conv(f"{name}.conv2", width, width, 3)
            conv(f"{name}.conv3", 4 * width, width, 1)
            if b == 0:
                conv(f"{name}.downsample.0", 4 * width, inp, 1)
            inp = 4 * width
    return shapes | {"fc.weight": (1000, inp), "fc.bias": (1000,)}


def vit_b16(width: int = 768, layers: int = 12) -> Shapes:
    """ViT-B/16 at 224 pixels: 152 tensors, 86,567,656 parameters."""
    shapes: Shapes = {
        "class_token": (1, 1, width), "conv_proj.weight": (width, 3, 16, 16), "conv_proj.bias": (width,),
        "encoder.pos_embedding": (1, 197, width),
    }  # fmt: skip
    for i in range(layers):
        block = {
            "ln_1.weight": (width,), "ln_1.bias": (width,),
            "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
            "ln_2.weight": (width,), "ln_2.bias": (width,),
            "mlp.0.weight": (4 * width, width), "mlp.0.bias": (4 * width,),
            "mlp.3.weight": (width, 4 * width), "mlp.3.bias": (width,),
        }  # fmt: skip
        shapes |= {f"encoder.layers.{i}.{name}": shape for name, shape in block.items()}
    head: Shapes = {"encoder.ln.weight": (width,), "encoder.ln.bias": (width,)}
    return shapes | head | {"head.weight": (1000, width), "head.bias": (1000,)}


MODELS: dict[str, Shapes] = {
    "gpt2": gpt2(),
    "resnet50": resnet50(),
    "vit-b16": vit_b16(),
    "many": {f"leaf{i}": (256,) for i in range(2000)},
    "huge": {"leaf": (1 << 26,)},
}


def size(shapes: Shapes) -> int:
    return sum(math.prod(s) for s in shapes.values())


def arrays(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal float32 values of the scale of trained weights."""
    rng = np.random.default_rng(seed)
    scale = np.float32(0.02)
    return {n: rng.standard_normal(s, np.float32) * scale for n, s in shapes.items()}
