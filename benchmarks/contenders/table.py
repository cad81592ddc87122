"""The table of contenders: who computes what, in how many launches, and where it is measured.

`launches` counts calls over parameter data *as written*, for n leaves: each reduction of a leaf, each
elementwise gradient of a leaf, each call of a multi-tensor operation. A compiler may merge some of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contenders import jax as contend_jax
from benchmarks.contenders import jax_optimizers as contend_jax_optimizers
from benchmarks.contenders import optimizers as contend_optimizers
from benchmarks.contenders import torch as contend_torch
from benchmarks.models.cases import CALLS, DTYPES, MODELS, Tree

Call = Callable[[], object]
Launches = Callable[[int], int]


@dataclass(frozen=True)
class Contender:
    """A row. `build(tree)` returns a call without arguments that returns when its result is there."""

    verb: str
    framework: str
    name: str
    launches: Launches
    build: Callable[[Tree], Call]
    quick: frozenset[tuple[str, str]]  # the (model, dtype) of the default run; BENCH=full measures all

    def skip(self, model: str, dtype: str, full: bool) -> str | None:
        """Why this case does not run, or None."""
        if importlib.util.find_spec(self.framework) is None:
            return f"{self.framework} is not installed"
        if "optax" in self.name and importlib.util.find_spec("optax") is None:
            return "optax is not installed"
        if "triton" in self.name and importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        if self.name == COMPILED and model == "many":
            return "2,000 leaves are too many for it"
        return None if full or (model, dtype) in self.quick else "BENCH=full"


COMPILED = "compile naive"
NAIVE = {"torch": ("naive eager",), "jax": ("naive jit", "naive eager")}  # whom "x naive" refers to, first found


def at(float32: str, bfloat16: str) -> frozenset[tuple[str, str]]:
    models = {"float32": float32, "bfloat16": bfloat16}
    return frozenset((model, dtype) for dtype in DTYPES for model in models[dtype].split())


# The default run: ours everywhere; peers where the project compares itself; what compiles for long, once.
EVERYWHERE = at(" ".join((*MODELS, *CALLS)), " ".join(MODELS))
PEERS = at(" ".join(MODELS), "gpt2 minilm many")
GRADIENTS = at("gpt2 resnet50 minilm many", "gpt2")
NOT_MANY = frozenset(case for case in EVERYWHERE if case[0] != "many")  # minutes to compile 2,000 leaves


def one(n: int) -> int:
    return 1


def two(n: int) -> int:
    return 2


def per_leaf(n: int) -> int:
    return n


def two_per_leaf(n: int) -> int:
    return 2 * n


def four_per_leaf(n: int) -> int:
    return 4 * n


def one_and_one_per_leaf(n: int) -> int:
    return 1 + n


FORWARD = (
    Contender("forward", "torch", "read limit", one, contend_torch.read_limit, EVERYWHERE),
    Contender("forward", "torch", "ours", one, contend_torch.ours, EVERYWHERE),
    Contender("forward", "torch", "naive eager", two_per_leaf, contend_torch.naive, PEERS),
    Contender("forward", "torch", "_foreach_norm", two, contend_torch.foreach, PEERS),
    Contender("forward", "torch", COMPILED, two_per_leaf, contend_torch.compiled, at("minilm", "")),
    Contender("forward", "jax", "ours jit", one, contend_jax.ours, EVERYWHERE),
    Contender("forward", "jax", "naive jit", two_per_leaf, contend_jax.naive_jit, PEERS & NOT_MANY),
    Contender("forward", "jax", "naive eager", two_per_leaf, contend_jax.naive_eager, at("gpt2 many", "")),
    Contender(
        "forward", "jax", "optax norms jit", two_per_leaf, contend_jax.optax_norms, at("gpt2 resnet50 minilm", "")
    ),
)

GRADIENT = (
    Contender("gradient", "torch", "copy limit", one, contend_torch.copy_limit, GRADIENTS),
    Contender("gradient", "torch", "fresh buffers", one, contend_torch.fresh_buffers, GRADIENTS),
    Contender("gradient", "torch", "ours penalty_and_grad", one, contend_torch.ours_and_grad, GRADIENTS),
    Contender("gradient", "torch", "ours backward", two, contend_torch.ours_backward, GRADIENTS),
    Contender("gradient", "torch", "naive eager", four_per_leaf, contend_torch.naive_backward, GRADIENTS),
    Contender("gradient", "torch", COMPILED, four_per_leaf, contend_torch.compiled_backward, at("", "")),
    Contender("gradient", "jax", "ours penalty_and_grad", one, contend_jax.ours_and_grad, GRADIENTS),
    Contender(
        "gradient", "jax", "ours value_and_grad", one_and_one_per_leaf, contend_jax.ours_value_and_grad,
        GRADIENTS & NOT_MANY,
    ),
    Contender(
        "gradient", "jax", "naive jit", four_per_leaf, contend_jax.naive_value_and_grad, GRADIENTS & NOT_MANY
    ),
)  # fmt: skip


def five(n: int) -> int:
    return 5


def four(n: int) -> int:
    return 4


INPLACE_MODELS = at("gpt2 resnet50 many", "gpt2")
INPLACE = (
    Contender("inplace", "torch", "add limit", one, contend_torch.add_limit, INPLACE_MODELS),
    Contender("inplace", "torch", "pass limit", one, contend_torch.pass_limit, INPLACE_MODELS),
    Contender("inplace", "torch", "ours add_grad_", one, contend_torch.ours_add, INPLACE_MODELS),
    Contender("inplace", "torch", "foreach add", five, contend_torch.foreach_add, INPLACE_MODELS),
    Contender("inplace", "torch", "naive eager", four_per_leaf, contend_torch.naive_add, at("gpt2 many", "")),
    Contender("inplace", "torch", "ours prox_", one, contend_torch.ours_prox, INPLACE_MODELS),
    Contender("inplace", "torch", "foreach prox, no value", four, contend_torch.foreach_prox, INPLACE_MODELS),
    Contender("inplace", "torch", "ours regularize_", one, contend_torch.ours_regularize, INPLACE_MODELS),
    Contender("inplace", "torch", "ours clip_grad_norm_", two, contend_torch.ours_clip, INPLACE_MODELS),
    Contender("inplace", "torch", "torch clip_grad_norm_", two, contend_torch.torch_clip, INPLACE_MODELS),
)

# Calls over parameter data in torch's `_multi_tensor_sgd` and `_multi_tensor_adam` with these options.
FOREACH = {"SGD": 1, "momentum": 3, "AdamW": 8}


def _launches(name: str) -> Launches:
    if name.endswith("foreach"):
        return lambda n: FOREACH[name.split()[0]]
    return two if name.endswith("_") else one


# XLA compiles optax's AdamW on 2,000 leaves for minutes.
JAX_MODELS = {"AdamW optax": at("gpt2", "")}
OPTIMIZER = tuple(
    Contender("optimizer", "torch", name, _launches(name), build, at("gpt2 many", ""))
    for name, build in contend_optimizers.builders().items()
) + tuple(
    Contender("optimizer", "jax", name, one if name.endswith("ours") else per_leaf, build,
              JAX_MODELS.get(name, at("gpt2 many", "")))
    for name, build in contend_jax_optimizers.builders().items()
)  # fmt: skip
