"""What a call costs before any element is read: many small leaves, called from Python without jit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.contenders import jax as contend_jax
from benchmarks.contenders import torch as contend_torch
from benchmarks.contenders import triton as contend_triton
from benchmarks.contenders.table import EVERYWHERE, Contender, four_per_leaf, one, one_and_one_per_leaf, two
from benchmarks.harness.measure import cases, measure
from benchmarks.models.cases import Tree


def torch_sums(tree: Tree) -> Callable[[], object]:
    from fused_penalty.torch import sums

    return lambda: sums(tree.torch)


def torch_norms(tree: Tree) -> Callable[[], object]:
    import torch

    return lambda: (torch._foreach_norm(tree.torch, 1), torch._foreach_norm(tree.torch, 2))


MANY = (
    Contender("overhead", "torch", "ours sums", one, torch_sums, EVERYWHERE),
    Contender("overhead", "torch", "_foreach_norm", two, torch_norms, EVERYWHERE),
)
SINGLE = (Contender("overhead", "torch", "ours penalty", one, contend_torch.ours, EVERYWHERE),)
TRITON = (
    Contender("overhead", "torch", "triton host, same tensors", one, contend_triton.same_tensors, EVERYWHERE),
    Contender("overhead", "torch", "triton host, new addresses", one, contend_triton.new_addresses, EVERYWHERE),
    Contender("overhead", "torch", "triton host, new sizes", one, contend_triton.new_sizes, EVERYWHERE),
)
FEW = (
    Contender(
        "overhead", "jax", "ours eager value_and_grad", one_and_one_per_leaf, contend_jax.ours_value_and_grad_eager,
        EVERYWHERE,
    ),
    Contender(
        "overhead", "jax", "naive eager", four_per_leaf, contend_jax.naive_value_and_grad_eager, EVERYWHERE
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "row"),
    [
        *cases(MANY, ("some", "many"), ("float32",)),
        *cases(SINGLE, ("single",), ("float32",)),
        *cases(TRITON, ("gpt2", "many"), ("float32",)),
        *cases(FEW, ("few",), ("float32",)),
    ],
    indirect=["tree"],
)
def test_overhead(benchmark: Any, tree: Tree, row: Contender) -> None:
    measure(benchmark, tree, row.build(tree), launches=row.launches(len(tree.leaves)))
