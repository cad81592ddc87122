"""One leaf of each size under PyTorch, beside torch's own pass over the same buffer, on one thread and on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.contenders.table import Call, Contender, at, one
from benchmarks.models.cases import L1, L2, RATE, SIZES, Tree

if TYPE_CHECKING:
    from torch import Tensor

Pass = Callable[["Tensor", "Tensor"], Call]  # of a leaf and another array like it


def _passes() -> dict[str, Pass]:
    from fused_penalty.torch import add_grad_, prox_, sums

    def adding(x: Tensor, g: Tensor) -> Call:
        leaf = x.detach().requires_grad_()
        leaf.grad = g
        return lambda: add_grad_([leaf], l1=L1, l2=L2)

    return {
        "torch.sum": lambda x, g: x.sum,
        "ours sums": lambda x, g: lambda: sums([x]),
        "torch mul_": lambda x, g: lambda: x.mul_(1.0),
        "ours prox_": lambda x, g: lambda: prox_([x], l1=L1, l2=L2, step=RATE),
        "torch add_": lambda x, g: lambda: g.add_(x),
        "ours add_grad_": adding,
    }


PAIRS = {"ours sums": "torch.sum", "ours prox_": "torch mul_", "ours add_grad_": "torch add_"}
NAMES = [name for pair in PAIRS.items() for name in reversed(pair)]


def _builder(name: str, threads: int | None) -> Callable[[Tree], Call]:
    def build(tree: Tree) -> Call:
        import torch

        (x,) = tree.torch
        call, every = _passes()[name](x, torch.zeros_like(x)), torch.get_num_threads()

        def on_some_threads() -> object:
            torch.set_num_threads(threads or every)
            try:
                return call()
            finally:
                torch.set_num_threads(every)

        return on_some_threads if threads else call

    return build


THREADS = {"1 thread": 1, "all threads": None}


def key(name: str, threads: str) -> str:
    return f"{name}, {threads}"


ROWS = tuple(
    Contender("sizes", "torch", key(name, threads), one, _builder(name, count),
              at(" ".join(SIZES), " ".join(SIZES) if "sum" in name else ""))
    for name in NAMES for threads, count in THREADS.items()
)  # fmt: skip
