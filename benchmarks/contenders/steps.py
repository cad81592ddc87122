"""A whole training step with gradients that come from outside: SGD, and the penalty's share added to it.

Kinds: `no penalty`; `decay by hand`, the penalty's gradient formula written by hand and no penalty value (the fair
lower bound: what any L1/L2 regularised step must do); `ours`; `naive`, the sum per leaf.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import jax as contend_jax
from benchmarks.contenders import torch as contend_torch
from benchmarks.models.cases import L1, L2, RATE, Tree

JAX_KINDS = ("no penalty", "decay by hand", "ours", "naive")
TORCH_KINDS = ("no penalty", "weight_decay", "ours add_grad_", "ours backward", "naive")


def _jax_step(kind: str) -> Callable[[Any, Any], tuple[Any, Any]]:
    import jax
    import jax.numpy as jnp

    def decay(x: jax.Array) -> jax.Array:
        return L1 * jnp.sign(x) + 2 * L2 * x

    def step(params: Any, grads: Any) -> tuple[Any, Any]:
        value = jnp.float32(0)
        if kind == "decay by hand":
            grads = jax.tree.map(lambda g, x: g + decay(x), grads, params)
        elif kind != "no penalty":
            f = contend_jax.penalty if kind == "ours" else contend_jax.penalty_per_leaf
            value, extra = jax.value_and_grad(f)(params)
            grads = jax.tree.map(jnp.add, grads, extra)
        return jax.tree.map(lambda x, g: x - RATE * g, params, grads), value

    return step


@functools.lru_cache(maxsize=8)
def jax_compiled(kind: str, shapes: tuple[tuple[str, tuple[int, ...]], ...], dtype: str) -> Any:
    """The compiled step whose parameters are donated. It is made from shapes alone, so that the repeated runs of a
    case share it and it keeps no arrays alive."""
    import jax

    abstract = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes}
    return jax.jit(_jax_step(kind), donate_argnums=0).lower(abstract, abstract).compile()


def jax_step(kind: str, tree: Tree) -> tuple[Callable[[], object], int]:
    """(the call, its temporary memory in bytes)."""
    import jax
    import jax.numpy as jnp

    compiled = jax_compiled(kind, tuple((n, x.shape) for n, x in tree.leaves.items()), tree.dtype)
    grads = tree.jax
    params = jax.tree.map(functools.partial(jnp.array, copy=True), grads)

    def call() -> None:
        nonlocal params
        params, value = compiled(params, grads)
        jax.block_until_ready((params, value))

    return call, compiled.memory_analysis().temp_size_in_bytes


def torch_step(kind: str, tree: Tree) -> Callable[[], object]:
    """torch.optim.SGD (multi-tensor). The same `.grad` serves every round: the penalty's share adds up in it, which
    costs what a first addition costs. torch's own weight_decay is L2 only."""
    import torch

    from fused_penalty.torch import add_grad_, penalty

    xs = [torch.nn.Parameter(x.clone()) for x in tree.torch]
    for x, g in zip(xs, tree.torch, strict=True):
        x.grad = g.clone()
    sgd = torch.optim.SGD(xs, lr=RATE, foreach=True, weight_decay=2 * L2 if kind == "weight_decay" else 0.0)

    def call() -> None:
        if kind == "naive":
            contend_torch.penalty_per_leaf(xs).backward()
        elif kind == "ours backward":
            penalty(xs, l1=L1, l2=L2).backward()
        elif kind == "ours add_grad_":
            add_grad_(xs, l1=L1, l2=L2)
        sgd.step()

    return call
