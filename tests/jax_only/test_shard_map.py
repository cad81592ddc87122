"""Inside the user's own shard_map: the local penalty, as jnp's."""

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
from tests.jax_only.meshes import L1, L2, Tree, mesh_of, naive, placed, run, small

LOCAL_SPECS = {"w": P("x", "y"), "b": P("x"), "whole": P()}  # vary over two axes, one and none


def in_shard_map(f: Callable[..., Any], kind: str, outs: Any, check: bool, axes: tuple[str, ...] = ("x", "y")) -> Any:
    mesh, tree = mesh_of("2x4", kind), small() | {"whole": np.float32([1, -2, 0.5])}
    own = {n: P(*(a if a in axes else None for a in spec)) for n, spec in LOCAL_SPECS.items()}
    outs = own if outs == "like params" else outs
    with jax.set_mesh(mesh):
        params = placed(mesh, tree, LOCAL_SPECS)
        mapped = jax.shard_map(f, mesh=mesh, in_specs=(own,), out_specs=outs, check_vma=check, axis_names=set(axes))
        return run(mapped, params)


BODIES: dict[str, tuple[Callable[..., Any], Any]] = {
    "value": (lambda f, p: jax.lax.psum(f(p), ("x", "y")), P()),
    "grad": (lambda f, p: jax.grad(f)(p), "like params"),
    "grad of the sum": (lambda f, p: jax.grad(lambda q: jax.lax.psum(f(q), ("x", "y")))(p), "like params"),
    "hvp": (lambda f, p: jax.jvp(jax.grad(f), (p,), (p,))[1], "like params"),
    "vmap": (lambda f, p: jax.lax.psum(jax.vmap(lambda b: f({**p, "b": b}))(p["b"]), ("x", "y")), P()),
    "vmap of grad": (lambda f, p: jax.vmap(jax.grad(lambda w: f({**p, "w": w})))(p["w"]), P("x", "y")),
}


@functools.cache
def naive_in_shard_map(name: str, kind: str, check: bool) -> tuple[Any, dict[str, int]]:
    body, outs = BODIES[name]
    return in_shard_map(functools.partial(body, naive), kind, outs, check)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("check", [True, False], ids=["check_vma", "no check"])
def test_inside_shard_map(name: str, check: bool, kind: str, backend: str) -> None:
    """The local penalty, as jnp's: its gradients need no other collectives than those of the formula."""
    body, outs = BODIES[name]
    ours = functools.partial(body, lambda p: penalty(p, L1, L2, backend=backend))
    found, counted = in_shard_map(ours, kind, outs, check)
    expected, needed = naive_in_shard_map(name, kind, check)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-7), found, expected)
    launches = counted.pop("launches")
    assert counted == {k: n for k, n in needed.items() if k != "launches"}
    if backend == "cpu":  # a launch for each set of axes that leaves vary over
        assert 1 <= launches <= (3 if check else 1)


@pytest.mark.parametrize("check", [True, False], ids=["check_vma", "no check"])
def test_penalty_and_grad_inside_shard_map(check: bool, kind: str, backend: str) -> None:
    found, counted = in_shard_map(lambda p: penalty_and_grad(p, L1, L2, backend=backend)[1], kind, "like params", check)
    formula = lambda p: jax.tree.map(lambda x: L1 * jnp.sign(x) + 2 * L2 * x, p)  # noqa: E731
    expected, _ = in_shard_map(formula, kind, "like params", check)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7, atol=1e-9), found, expected)
    assert counted["all_reduces"] == counted["all_gathers"] == counted["other_collectives"] == 0


@pytest.mark.parametrize("check", [True, False], ids=["check_vma", "no check"])
def test_shard_map_over_some_axes(check: bool, kind: str, backend: str) -> None:
    """The other axes are XLA's or the types': right, if the leaf may be gathered over them."""

    def body(f: Callable[..., Any], p: Tree) -> Any:
        return jax.lax.psum(f(p), "x"), jax.grad(lambda q: f({**p, "b": q}))(p["b"])

    outs = P(), P("x")
    found, _ = in_shard_map(
        functools.partial(body, lambda p: penalty(p, L1, L2, backend=backend)), kind, outs, check, ("x",)
    )
    expected, _ = in_shard_map(functools.partial(body, naive), kind, outs, check, ("x",))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-7), found, expected)
