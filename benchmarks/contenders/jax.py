"""JAX's contenders: each function takes a tree and returns the call that is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.models.cases import L1, L2, Tree

if TYPE_CHECKING:
    import jax

Params = Any


def penalty_per_leaf(params: Params) -> jax.Array:
    """What people write."""
    import jax
    import jax.numpy as jnp

    return sum(L1 * jnp.abs(x).sum() + L2 * jnp.square(x).sum() for x in jax.tree.leaves(params))  # type: ignore[return-value]


def penalty(params: Params) -> jax.Array:
    from fused_penalty.jax import penalty

    return penalty(params, l1=L1, l2=L2)


def penalty_by_optax(params: Params) -> jax.Array:
    import optax

    return L1 * optax.tree.norm(params, ord=1) + L2 * optax.tree.norm(params, ord=2, squared=True)


def _timed(f: Callable[[Params], Any], tree: Tree) -> Callable[[], object]:
    import jax

    return lambda: jax.block_until_ready(f(tree.jax))


def naive_eager(tree: Tree) -> Callable[[], object]:
    return _timed(penalty_per_leaf, tree)


def naive_jit(tree: Tree) -> Callable[[], object]:
    import jax

    return _timed(jax.jit(penalty_per_leaf), tree)


def optax_norms(tree: Tree) -> Callable[[], object]:
    import jax

    return _timed(jax.jit(penalty_by_optax), tree)


def ours(tree: Tree) -> Callable[[], object]:
    import jax

    return _timed(jax.jit(penalty), tree)


def naive_value_and_grad(tree: Tree) -> Callable[[], object]:
    import jax

    return _timed(jax.jit(jax.value_and_grad(penalty_per_leaf)), tree)


def ours_value_and_grad(tree: Tree) -> Callable[[], object]:
    import jax

    return _timed(jax.jit(jax.value_and_grad(penalty)), tree)


def ours_value_and_grad_eager(tree: Tree) -> Callable[[], object]:
    import jax

    return _timed(jax.value_and_grad(penalty), tree)


def naive_value_and_grad_eager(tree: Tree) -> Callable[[], object]:
    import jax

    return _timed(jax.value_and_grad(penalty_per_leaf), tree)


def ours_and_grad(tree: Tree) -> Callable[[], object]:
    import jax

    from fused_penalty.jax import penalty_and_grad

    return _timed(jax.jit(lambda params: penalty_and_grad(params, l1=L1, l2=L2)), tree)
