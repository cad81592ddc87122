"""An optimizer's whole step in JAX, jitted with params and state donated: ours with penalty and value in one custom
call, optax's without a penalty. Gradients come from outside and stay the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.models.cases import L1, L2, RATE, Tree

KINDS = ("SGD", "AdamW")
FORMS = ("ours", "optax")


def step(kind: str, form: str, tree: Tree) -> Callable[[], object]:
    """The call that is timed."""
    import jax
    import jax.numpy as jnp

    init, function = (_ours if form == "ours" else _optax)(kind)
    jitted = jax.jit(function, donate_argnums=(0, 2))
    grads = tree.jax
    params = jax.tree.map(functools.partial(jnp.array, copy=True), grads)
    state = init(params)

    def call() -> None:
        nonlocal params, state
        params, state, value = jitted(params, grads, state)
        jax.block_until_ready((params, value))

    return call


def _ours(kind: str) -> tuple[Any, Any]:
    from fused_penalty.jax import optim

    optimizer = (optim.sgd if kind == "SGD" else optim.adamw)(RATE, l1=L1, l2=L2)

    def function(params: Any, grads: Any, state: Any) -> Any:
        params, state, summary = optimizer.step(params, grads, state)
        return params, state, summary.penalty

    return optimizer.init, function


def _optax(kind: str) -> tuple[Any, Any]:
    import optax

    optimizer = optax.sgd(RATE) if kind == "SGD" else optax.adamw(RATE)

    def function(params: Any, grads: Any, state: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, 0.0

    return optimizer.init, function


def builders() -> dict[str, Callable[[Tree], Callable[[], object]]]:
    """By the name of the row: "AdamW ours"."""
    return {f"{kind} {form}": functools.partial(step, kind, form) for kind in KINDS for form in FORMS}
