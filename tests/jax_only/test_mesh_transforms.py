"""Transformations on a mesh: derivatives and vmap of sharded parameters are those of the formula in jnp."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from fused_penalty.jax import penalty, penalty_and_grad
from tests.jax_only.meshes import L1, L2, SPECS, Tree, mesh_of, naive, placed, small

TRANSFORMS: dict[str, tuple[Callable[..., Any], dict[str, P], tuple[int, ...]]] = {
    "jvp": (lambda f, p: jax.jvp(f, (p,), (p,)), SPECS, ()),
    "hvp": (lambda f, p: jax.jvp(jax.grad(f), (p,), (p,))[1], SPECS, ()),
    "hvp, reverse over forward": (lambda f, p: jax.grad(lambda q: jax.jvp(f, (q,), (p,))[1])(p), SPECS, ()),
    "gradient of strengths": (lambda f, p: jax.grad(f, (1, 2))(p, 0.3, 0.7), SPECS, ()),
    "anchor": (lambda f, p: jax.grad(lambda q: f(q, anchor=jax.tree.map(jnp.sin, q)))(p), SPECS, ()),
    "vmap": (lambda f, p: jax.vmap(f)(p), {"w": P("x", None, "y"), "b": P("x")}, (4,)),
    "vmap of one leaf": (lambda f, p: jax.vmap(lambda w: f({"w": w, "b": p["b"]}))(p["w"]), {"w": P("y", "x")}, (4,)),
    "vmap, uneven": (lambda f, p: jax.vmap(f)(p), {"w": P(None, "x")}, (3,)),
    "vmap of grad": (lambda f, p: jax.vmap(jax.grad(f))(p), {"w": P("x", None, "y"), "b": P("x")}, (4,)),
    "vmap of strengths": (lambda f, p: jax.vmap(lambda a: f(p, a))(jnp.arange(3.0)), SPECS, ()),
    "nested vmap": (lambda f, p: jax.vmap(jax.vmap(f))(p), {"w": P("x", "y"), "b": P("x", "y")}, (2, 4)),
    "scan": (
        lambda f, p: jax.lax.scan(
            lambda q, a: (jax.tree.map(lambda x, g: x - 0.1 * g, q, jax.grad(f)(q, a)), f(q)), p, jnp.arange(3.0)
        ), SPECS, ()),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_on_a_mesh(name: str, kind: str, backend: str) -> None:
    transform, specs, batch = TRANSFORMS[name]
    mesh, tree = mesh_of("2x4", kind), small(batch=batch)
    expected = transform(naive, tree)

    def f(p: Tree, l1: Any = L1, l2: Any = L2, anchor: Tree | None = None) -> Any:
        return penalty(p, l1, l2, anchor=anchor, backend=backend)

    with jax.set_mesh(mesh):
        found = jax.jit(functools.partial(transform, f))(placed(mesh, tree, specs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.asarray(b), rtol=3e-6, atol=1e-7), found, expected)


def test_penalty_and_grad_under_vmap(kind: str, backend: str) -> None:
    mesh, tree = mesh_of("2x4", kind), small(batch=(4,))
    specs = {"w": P("x", None, "y"), "b": P("x", "y")}
    with jax.set_mesh(mesh):
        each = jax.vmap(lambda p: penalty_and_grad(p, L1, L2, backend=backend))
        found = jax.jit(each)(placed(mesh, tree, specs))
    expected = jax.vmap(jax.value_and_grad(naive))(tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.asarray(b), rtol=3e-6, atol=1e-7), found, expected)
