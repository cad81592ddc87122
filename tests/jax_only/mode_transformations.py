"""The transformations of JAX: how a verb (modes.py) is called under each; for test_modes.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from tests.jax_only.modes import Tree

TARGET, STEP_TARGET = "fused_penalty", "fused_penalty_step"


def _donated(f: Any, p: Tree, a: Tree) -> Any:
    """The memory of p goes to the new p."""
    step = jax.jit(lambda p, a: (f(p, a), jax.tree.map(lambda x: 0.5 * x, p)), donate_argnums=0)
    found, half = step(jax.tree.map(jnp.copy, p), a)
    jax.tree.map(lambda h, x: np.testing.assert_array_equal(h, 0.5 * x), half, p)
    return found


def _vmapped(f: Any, p: Tree, a: Tree) -> Any:
    found = jax.vmap(f)(*jax.tree.map(lambda x: jnp.stack([x, 2 * x]), (p, a)))
    return jax.tree.map(lambda x: x[0], found)


def _scanned(f: Any, p: Tree, a: Tree) -> Any:
    return jax.tree.map(lambda x: x[1], jax.lax.scan(lambda c, _: (c, f(c, a)), p, None, length=2)[1])


def _evaluated(f: Any, p: Tree, a: Tree) -> Any:
    found, shapes = f(p, a), jax.eval_shape(f, p, a)
    jax.tree.map(lambda x, s: np.testing.assert_equal((x.shape, x.dtype), (s.shape, s.dtype)), found, shapes)
    return found


def _traced(f: Any, p: Tree, a: Tree) -> Any:
    jaxpr, shapes = jax.make_jaxpr(f, return_shape=True)(p, a)
    flat = jax.core.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, *jax.tree.leaves((p, a)))
    return jax.tree.unflatten(jax.tree.structure(shapes), flat)


def _linearized(f: Any, p: Tree, a: Tree) -> Any:
    found, linear = jax.linearize(lambda q: f(q, a), p)
    _, tangents = jax.jvp(lambda q: f(q, a), (p,), (a,))
    as_floats = lambda t: [np.asarray(x, np.float64) for x in jax.tree.leaves(t) if x.dtype != jax.dtypes.float0]  # noqa: E731
    for x, y in zip(as_floats(linear(a)), as_floats(tangents), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-2)  # bfloat16
    return found


def _around(f: Any, p: Tree, a: Tree) -> Any:
    g = jax.custom_vjp(f)
    g.defvjp(lambda q, a: (f(q, a), (q, a)), lambda kept, ct: kept)
    found, pull = jax.vjp(g, p, a)
    jax.tree.map(np.testing.assert_array_equal, pull(jax.tree.map(_cotangent, found)), (p, a))
    return found


def _cotangent(x: Any) -> Any:
    return jnp.ones_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0)


def _exported(f: Any, p: Tree, a: Tree) -> Any:
    checks = [export.DisabledSafetyCheck.custom_call(target) for target in (TARGET, STEP_TARGET)]
    text = export.export(jax.jit(f), disabled_checks=checks)(p, a).serialize()
    return export.deserialize(text).call(p, a)


TRANSFORMATIONS: dict[str, Callable[..., Any]] = {
    "jax.jit": lambda f, p, a: jax.jit(f)(p, a),
    "jax.jit, donated parameters": _donated,
    "jax.vmap": _vmapped,
    "jax.lax.scan": _scanned,
    "jax.checkpoint": lambda f, p, a: jax.checkpoint(f)(p, a),
    "jax.eval_shape": _evaluated,
    "jax.make_jaxpr": _traced,
    "jax.linearize": _linearized,
    "jax.custom_vjp around it": _around,
    "jax.export": _exported,
}
