"""Small trees and one step of an optimizer, for the tests of the optax transformations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.support.frontends import DTYPES

Tree = dict[str, Any]


def tree(dtype: str = "float32", seed: int = 0) -> Tree:
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (7, 5), "bias": (5,), "scale": ()}
    return {k: jnp.asarray(rng.standard_normal(s).astype(DTYPES[dtype])) for k, s in shapes.items()}


def step(optimizer: Any, params: Any, grads: Any, state: Any = None) -> tuple[Any, Any]:
    """One jitted step: (new params, new state)."""

    @jax.jit
    def run(params: Any, grads: Any, state: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return run(params, grads, optimizer.init(params) if state is None else state)


def equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)
