"""Sharded parameters: the value and gradients of one device, one launch per device and one all-reduce of the sums."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.scale.hlo import compiled_counts
from fused_penalty.jax import penalty, penalty_and_grad, prox, stats, sums
from tests.jax_only.meshes import L1, L2, SPECS, leaves_of, mesh_of, placed, run, small, specs_of
from tests.support import oracle
from tests.support.check import close_gradient, close_value


def same_on_all_devices(x: jax.Array) -> None:
    parts = [np.asarray(s.data).tobytes() for s in x.addressable_shards]
    assert len(parts) == 8
    assert len(set(parts)) == 1


@pytest.mark.parametrize(("size", "backend"), [("1x8", "cpu"), ("2x4", "cpu"), ("2x2x2", "cpu"), ("2x4", "reference")])
def test_value_and_gradient_are_those_of_one_device(size: str, kind: str, backend: str) -> None:
    mesh = mesh_of(size, kind)
    specs = specs_of(mesh)
    tree = leaves_of(specs)
    strengths = {n: L1 * (1 + i % 2) for i, n in enumerate(tree)}  # leaves of a group are sharded in many ways
    params = placed(mesh, tree, specs)
    found, grads = penalty_and_grad(params, strengths, L2, backend=backend)
    leaves = list(tree.values())
    expected = oracle.penalty(leaves, list(strengths.values()), [L2] * len(leaves))
    with jax.set_mesh(mesh):  # the gradient of an explicit mesh needs it, whatever is differentiated
        value, diff = jax.jit(jax.value_and_grad(lambda p: penalty(p, strengths, L2, backend=backend)))(params)
    alone, _ = penalty_and_grad(tree, strengths, L2, backend=backend)
    for v in (found, value, penalty(params, strengths, L2, backend=backend)):
        close_value(v, expected)
        np.testing.assert_allclose(v, alone, rtol=1e-6)
        same_on_all_devices(v)
    for n, x in tree.items():
        exact = oracle.gradient(np.asarray(x), strengths[n], L2)
        for g in (grads[n], diff[n]):
            close_gradient(g, exact, x.dtype.name)
            assert g.sharding.is_equivalent_to(params[n].sharding, x.ndim)
    s = sums(params, backend=backend)
    for path, a, q in zip(s.paths, s.abs, s.square, strict=True):
        close_value(a, oracle.sums(np.asarray(tree[path]))[0])
        close_value(q, oracle.sums(np.asarray(tree[path]))[1])


VERBS: dict[str, tuple[Callable[..., Any], int]] = {  # function of params, and how many all-reduces it needs
    "penalty": (lambda p: penalty(p, L1, L2), 1),
    "penalty of two groups": (lambda p: penalty(p, {n: L1 * (1 + i % 2) for i, n in enumerate(p)}, L2), 1),
    "value_and_grad": (jax.value_and_grad(lambda p: penalty(p, L1, L2)), 1),
    "grad": (jax.grad(lambda p: penalty(p, L1, L2)), 0),
    "penalty_and_grad": (lambda p: penalty_and_grad(p, L1, L2), 1),
    "penalty_and_grad, gradient only": (lambda p: penalty_and_grad(p, L1, L2)[1], 0),
    "sums": (lambda p: sums(p)[:2], 1),
    "anchor": (lambda p: penalty(p, L1, L2, anchor=jax.tree.map(lambda x: 0.5 * x, p)), 1),
    "anchor, gradient": (jax.grad(lambda p: penalty(p, L1, L2, anchor=jax.tree.map(lambda x: x * x, p))), 0),
}


OTHER_SIZES = [(size, name) for size in ("1x8", "2x2x2") for name in ("penalty", "value_and_grad", "penalty_and_grad")]


@pytest.mark.parametrize(("size", "name"), [*(("2x4", name) for name in VERBS), *OTHER_SIZES])
def test_one_launch_and_one_all_reduce(size: str, kind: str, name: str) -> None:
    mesh = mesh_of(size, kind)
    specs = specs_of(mesh)
    f, all_reduces = VERBS[name]
    with jax.set_mesh(mesh):
        found = compiled_counts(f, placed(mesh, leaves_of(specs), specs))
    assert found == {"launches": 1, "all_reduces": all_reduces, "all_gathers": 0, "other_collectives": 0}


def test_replicated_leaves_need_no_all_reduce(kind: str) -> None:
    """Data parallelism: each device has the whole model, so nothing travels."""
    mesh = mesh_of("2x4", kind)
    params = placed(mesh, leaves_of({"a": P(), "b": P()}), {})
    found = compiled_counts(lambda p: penalty(p, L1, L2), params)
    assert found == {"launches": 1, "all_reduces": 0, "all_gathers": 0, "other_collectives": 0}


def test_prox_travels_nowhere(kind: str, backend: str) -> None:
    mesh = mesh_of("2x4", kind)
    specs = specs_of(mesh)
    tree = leaves_of(specs)
    params = placed(mesh, tree, specs)
    f = functools.partial(prox, l1=0.3, l2=L2, step=0.5, backend=backend)
    with jax.set_mesh(mesh):
        found, counted = run(f, params)
    expected = f(tree)
    for n, x in found.items():
        np.testing.assert_array_equal(np.asarray(x), np.asarray(expected[n]))
        assert x.sharding.is_equivalent_to(params[n].sharding, x.ndim)
        assert n in ("scalar", "empty") or 0 < np.mean(np.asarray(x) == 0) < 1
    launches = int(backend == "cpu")
    assert counted == {"launches": launches, "all_reduces": 0, "all_gathers": 0, "other_collectives": 0}


def test_stats_of_the_whole_leaves(kind: str, backend: str) -> None:
    mesh = mesh_of("2x4", kind)
    specs = specs_of(mesh)
    tree = leaves_of(specs)
    for x in tree.values():
        if x.size > 1:
            x.flat[::5] = 0
    names = [n for n, x in tree.items() if x.size > 1]
    tree[names[0]].flat[7], tree[names[1]].flat[-1], tree[names[2]].flat[0] = np.nan, np.inf, -np.inf
    params = placed(mesh, tree, specs)
    found, counted = run(lambda p: stats(p, backend=backend)[:5], params)
    expected = stats(tree, backend="cpu")
    for a, b in zip(found, expected[:5], strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=1e-6)
        assert a.dtype == b.dtype
    _, _, largest, zeros, nonfinite = found
    assert np.isnan(largest[expected.paths.index(names[0])])
    assert np.sum(nonfinite) == 3
    np.testing.assert_array_equal(zeros, [np.sum(np.asarray(tree[n]) == 0) for n in expected.paths])
    assert counted["all_gathers"] == 0


def test_a_dimension_that_does_not_divide_evenly(backend: str) -> None:
    """JAX refuses to place it; inside jit a constraint may ask for it, and XLA pads: padding is not summed."""
    mesh = mesh_of("1x8", "auto")
    x = np.random.default_rng(0).standard_normal((13, 3), np.float32)
    sharding = NamedSharding(mesh, P("y"))
    with pytest.raises(ValueError, match="divide"):
        jax.device_put(x, sharding)

    def f(x: jax.Array) -> Any:
        x = jax.lax.with_sharding_constraint(x - 1, sharding)  # padding with 0 would become -1
        return penalty([x], L1, L2, backend=backend), penalty_and_grad([x], L1, L2, backend=backend)

    value, (same, (grad,)) = jax.jit(f)(x)
    for v in (value, same):
        close_value(v, oracle.penalty([x - 1], [L1], [L2]))
    close_gradient(grad, oracle.gradient(x - 1, L1, L2), "float32")


def test_axes_of_both_kinds(backend: str) -> None:
    tree = small()
    for types in ((AxisType.Auto, AxisType.Explicit), (AxisType.Explicit, AxisType.Auto)):
        mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=types)
        with jax.set_mesh(mesh):
            f = jax.jit(jax.value_and_grad(lambda p: penalty(p, L1, L2, backend=backend)))
            value, grads = f(placed(mesh, tree, SPECS))
        close_value(value, oracle.penalty(list(tree.values()), [L1] * 2, [L2] * 2))
        for n, x in tree.items():
            close_gradient(grads[n], oracle.gradient(x, L1, L2), "float32")


def test_an_anchor_is_sharded_as_its_leaf_or_the_leaf_as_its_anchor(kind: str) -> None:
    mesh, x, a = mesh_of("2x4", kind), small()["w"], small(1)["w"]
    expected = oracle.penalty([x], [L1], [L2], [a])
    f = lambda x, a: penalty([x], L1, L2, anchor=[a])  # noqa: E731
    for ours, theirs in ((P("x", "y"), P()), (P(), P("x", "y")), (P("x"), P(None, "y"))):
        args = (jax.device_put(v, NamedSharding(mesh, spec)) for v, spec in ((x, ours), (a, theirs)))
        with jax.set_mesh(mesh):
            pair = tuple(args)
            found, counted = run(f, *pair)
        close_value(found, expected)
        assert counted["all_gathers"] == 0


def test_pmap(backend: str) -> None:
    x = np.arange(-16, 16, dtype=np.float32).reshape(8, 4)
    found = jax.pmap(lambda x: penalty([x], L1, L2, backend=backend))(x)
    np.testing.assert_allclose(found, [oracle.penalty([row], [L1], [L2]) for row in x], rtol=1e-6)


def test_many_leaves_of_many_ranks(kind: str) -> None:
    """More leaves than XLA's names of factors have letters."""
    mesh = mesh_of("2x2x2", kind)
    shapes = [(8,) * (1 + i % 4) for i in range(40)]
    tree = {str(i): np.full(s, 0.5, np.float32) for i, s in enumerate(shapes)}
    specs = {str(i): P("x", *("yz"[: i % 3])) if i % 4 > 1 else P() for i in range(40)}
    found, grads = penalty_and_grad(placed(mesh, tree, specs), L1, L2)
    n = sum(math.prod(s) for s in shapes)
    close_value(found, n * (0.5 * L1 + 0.25 * L2))
    assert all(float(jnp.max(jnp.abs(g - (L1 + L2)))) < 1e-8 for g in grads.values())
