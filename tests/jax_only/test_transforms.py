"""Every transformation of JAX over the penalty equals the same over the formula in plain jnp, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import equinox as eqx
import jax.numpy as jnp
from flax import nnx

import fused_penalty as fp
from fused_penalty.jax import penalty, penalty_and_grad, sums

BACKENDS = ["cpu", "reference"]
Tree = dict[str, Any]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def tree(seed: int = 0, batch: tuple[int, ...] = ()) -> Tree:
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.standard_normal((*batch, 3, 4))), "b": jnp.asarray(rng.standard_normal((*batch, 5)))}


def formula(p: Tree, l1: Any, l2: Any, anchor: Tree | None = None) -> Any:
    """The penalty as a user writes it (away from zero, where JAX's own |x| has derivative +1)."""
    if anchor is not None:
        p = jax.tree.map(jnp.subtract, p, anchor)
    each = jax.tree.map(lambda x: (jnp.sum(jnp.abs(x)), jnp.sum(x * x)), p)
    scale = lambda s, k: s[k] if isinstance(s, dict) else s  # noqa: E731
    return sum(scale(l1, k) * a + scale(l2, k) * s for k, (a, s) in each.items())


def same(ours: Callable[..., Any], theirs: Callable[..., Any], *args: Any) -> None:
    found, expected = ours(*args), theirs(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


def pair(backend: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return (lambda p, a, b: penalty(p, a, b, backend=backend)), formula


S = (jnp.float32(0.3), jnp.float32(0.7))
TRANSFORMS: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "value": lambda f: f(tree(), 0.3, 0.7),
    "jit": lambda f: jax.jit(f)(tree(), *S),
    "grad": lambda f: jax.grad(f)(tree(), 0.3, 0.7),
    "value_and_grad": lambda f: jax.value_and_grad(f)(tree(), 0.3, 0.7),
    "jit_grad": lambda f: jax.jit(jax.grad(f))(tree(), *S),
    "grad_strengths": lambda f: jax.grad(f, (1, 2))(tree(), jnp.float64(0.3), jnp.float64(0.7)),
    "grad_zero_strengths": lambda f: jax.grad(f, (1, 2))(tree(), jnp.float64(0), jnp.float64(0)),
    "strength_trees": lambda f: jax.grad(f)(tree(), {"w": 0.1, "b": 0.2}, {"w": 0.0, "b": 0.4}),
    "jvp": lambda f: jax.jvp(lambda p: f(p, 0.3, 0.7), (tree(),), (tree(1),)),
    "jvp_strengths": lambda f: jax.jvp(lambda a: f(tree(), a, 0.7), (0.0,), (1.0,)),
    "vjp": lambda f: jax.vjp(lambda p: f(p, 0.3, 0.7), tree())[1](jnp.float64(2.0)),
    "hvp_forward_reverse": lambda f: jax.jvp(jax.grad(lambda p: f(p, 0.3, 0.7)), (tree(),), (tree(1),)),
    "hvp_reverse_forward": lambda f: jax.grad(lambda p: jax.jvp(lambda q: f(q, 0.3, 0.7), (p,), (tree(1),))[1])(tree()),
    "hvp_reverse_reverse": lambda f: jax.grad(
        lambda p: sum(jnp.vdot(a, b) for a, b in zip(
            jax.tree.leaves(jax.grad(f)(p, 0.3, 0.7)), jax.tree.leaves(tree(1)), strict=True))
    )(tree()),
    "hvp_forward_forward": lambda f: jax.jvp(
        lambda p: jax.jvp(lambda q: f(q, 0.3, 0.7), (p,), (tree(1),))[1], (tree(),), (tree(2),)
    ),
    "hessian": lambda f: jax.hessian(lambda b: f({"b": b}, 0.3, 0.7))(tree()["b"]),
    "mixed_derivative": lambda f: jax.jacfwd(jax.grad(lambda p, a: f(p, a, 0.7)), 1)(tree(), jnp.float64(0.0)),
    "mixed_derivative_reverse": lambda f: jax.jacrev(jax.grad(lambda a, p: f(p, 0.1, a)), 1)(jnp.float64(0.0), tree()),
    "third_order": lambda f: jax.jvp(jax.hessian(lambda b: f({"b": b}, 0.3, 0.7)), (tree()["b"],), (tree(1)["b"],)),
    "vmap_params": lambda f: jax.vmap(lambda p: f(p, 0.3, 0.7))(tree(batch=(6,))),
    "vmap_one_leaf": lambda f: jax.vmap(lambda w: f({**tree(), "w": w}, 0.3, 0.7))(tree(batch=(6,))["w"]),
    "vmap_one_leaf_two_groups": lambda f: jax.vmap(lambda w: f({**tree(), "w": w}, {"w": 0.1, "b": 0.2}, 0.7))(
        tree(batch=(6,))["w"]
    ),
    "vmap_in_axes": lambda f: jax.vmap(lambda w: f({"w": w}, 0.3, 0.7), in_axes=2)(tree(batch=(6,))["w"]),
    "vmap_strengths": lambda f: jax.vmap(lambda a: f(tree(), a, 0.7))(jnp.linspace(0, 1, 4)),
    "vmap_both": lambda f: jax.vmap(f)(tree(batch=(4,)), jnp.linspace(0, 1, 4), jnp.linspace(1, 2, 4)),
    "vmap_nested": lambda f: jax.vmap(jax.vmap(lambda p: f(p, 0.3, 0.7)))(tree(batch=(2, 3))),
    "vmap_nested_mixed": lambda f: jax.vmap(lambda w: jax.vmap(lambda b: f({"w": w, "b": b}, 0.3, 0.7))(
        tree(batch=(3,))["b"]))(tree(batch=(2,))["w"]),
    "vmap_of_grad": lambda f: jax.vmap(jax.grad(lambda p: f(p, 0.3, 0.7)))(tree(batch=(6,))),
    "vmap_of_hvp": lambda f: jax.vmap(
        lambda p, t: jax.jvp(jax.grad(lambda q: f(q, 0.3, 0.7)), (p,), (t,))[1]
    )(tree(batch=(3,)), tree(1, (3,))),
    "grad_of_vmap": lambda f: jax.grad(lambda p: jax.vmap(lambda q: f(q, 0.3, 0.7))(p).sum())(tree(batch=(6,))),
    "scan": lambda f: jax.lax.scan(
        lambda p, a: (jax.tree.map(lambda x, g: x - 0.1 * g, p, jax.grad(f)(p, a, 0.7)), f(p, a, 0.7)),
        tree(), jnp.linspace(0.1, 1, 5)),
    "grad_of_scan": lambda f: jax.grad(lambda p: jax.lax.scan(
        lambda c, a: (c + f(p, a, 0.7), None), jnp.float64(0), jnp.linspace(0.1, 1, 5))[0])(tree()),
    "cond": lambda f: jax.grad(lambda p: jax.lax.cond(True, lambda: f(p, 0.3, 0.7), lambda: jnp.float64(0)))(tree()),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(lambda p: jnp.sin(f(p, 0.3, 0.7))))(tree()),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str, backend: str) -> None:
    ours, theirs = pair(backend)
    same(lambda: TRANSFORMS[name](ours), lambda: TRANSFORMS[name](theirs))


@pytest.mark.parametrize(
    "run",
    [
        lambda f: jax.grad(f, (0, 1))(tree(), tree(1)),
        lambda f: jax.jvp(f, (tree(), tree(1)), (tree(2), tree(3))),
        lambda f: jax.vmap(f, (0, None))(tree(batch=(4,)), tree(1)),
        lambda f: jax.vmap(f, (None, 0))(tree(), tree(1, (4,))),
        lambda f: jax.vmap(jax.grad(f, (0, 1)), (0, None))(tree(batch=(4,)), tree(1)),
        lambda f: jax.jvp(jax.grad(f, 1), (tree(), tree(1)), (tree(2), tree(3))),
    ],
)
def test_anchor(run: Callable[..., Any], backend: str) -> None:
    same(
        lambda: run(lambda p, a: penalty(p, 0.3, 0.7, anchor=a, backend=backend)),
        lambda: run(lambda p, a: formula(p, 0.3, 0.7, a)),
    )


@pytest.mark.parametrize(
    "run",
    [
        lambda f: f(tree(), 0.3, 0.7),
        lambda f: jax.jit(f)(tree(), *S),
        lambda f: jax.vmap(lambda p: f(p, 0.3, 0.7))(tree(batch=(4,))),
        lambda f: jax.vmap(lambda a: f(tree(), a, 0.7))(jnp.linspace(0.1, 1, 4)),
        lambda f: jax.vmap(lambda w: f({**tree(), "w": w}, {"w": 0.1, "b": 0.2}, 0.7))(tree(batch=(4,))["w"]),
        lambda f: jax.vmap(jax.vmap(lambda p: f(p, 0.3, 0.7)))(tree(batch=(2, 3))),
        lambda f: jax.jvp(lambda p: f(p, 0.3, 0.7), (tree(),), (tree(1),)),
        lambda f: jax.grad(lambda a: f(tree(), a, 0.7)[1]["w"].sum())(jnp.float64(0.2)),
    ],
)
def test_penalty_and_grad_under_transforms(run: Callable[..., Any], backend: str) -> None:
    same(
        lambda: run(lambda p, a, b: penalty_and_grad(p, a, b, backend=backend)),
        lambda: run(lambda p, a, b: jax.value_and_grad(formula)(p, a, b)),
    )


def test_sums_are_differentiable(backend: str) -> None:
    def ours(p: Tree) -> Any:
        s = sums(p, backend=backend)
        return jnp.sum(s.abs * jnp.arange(1, len(p) + 1) + s.square**2)

    def theirs(p: Tree) -> Any:
        leaves = jax.tree.leaves(p)
        return sum((i + 1) * jnp.sum(jnp.abs(x)) + jnp.sum(x * x) ** 2 for i, x in enumerate(leaves))

    same(jax.grad(ours), jax.grad(theirs), tree())
    same(jax.hessian(lambda b: ours({"b": b})), jax.hessian(lambda b: theirs({"b": b})), tree()["b"])


def test_a_traced_zero_removes_the_term_from_the_value_only(backend: str) -> None:
    f = jax.jit(jax.value_and_grad(lambda x, a, b: penalty([x], a, b, backend=backend), (0, 1, 2)))
    x = jnp.array([jnp.inf, 1.0])
    value, (dx, da, db) = f(x, 0.5, 0.0)
    assert value == np.inf
    assert np.isnan(dx[0])  # IEEE: 0 * inf
    assert da == np.inf
    assert db == np.inf
    value, _ = f(x, 0.0, 0.0)
    assert value == 0.0


def test_a_schedule_does_not_recompile(backend: str) -> None:
    traces = 0

    @jax.jit
    def step(p: Tree, a: Any) -> Any:
        nonlocal traces
        traces += 1
        return penalty(p, a, 0.1, backend=backend)

    for a in np.linspace(0, 1, 5):
        step(tree(), jnp.float64(a))
    assert traces == 1
    before = step._cache_size()
    for a in np.linspace(0, 1, 5):  # and eagerly: Python floats are operands too
        penalty(tree(), jnp.float64(a), 0.1, backend=backend)
    assert step._cache_size() == before == 1


def test_learned_strength_moves_from_zero(backend: str) -> None:
    strength = jnp.float64(0.0)
    slope = jax.grad(lambda a: penalty(tree(), a, 0.0, backend=backend))(strength)
    np.testing.assert_allclose(slope, sum(float(jnp.sum(jnp.abs(x))) for x in tree().values()))


def test_trees_of_the_libraries_users_have(backend: str) -> None:
    expected = {"l1": 0.1, "l2": 0.2}

    def check(params: Any, leaves: list[Any]) -> None:
        found = penalty(params, **expected, backend=backend)
        np.testing.assert_allclose(found, formula({str(i): x for i, x in enumerate(leaves)}, 0.1, 0.2), rtol=1e-6)

    mlp = eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(0))
    arrays = eqx.filter(mlp, eqx.is_inexact_array)
    check(arrays, jax.tree.leaves(arrays))
    with pytest.raises(TypeError, match=r"equinox\.filter"):
        penalty(mlp, 0.1, 0.2, backend=backend)

    linear = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    state = nnx.state(linear, nnx.Param)
    check(state, jax.tree.leaves(state))
    nested = {"a": [np.ones(3, np.float32), (2.0, None)], "b": {"c": jnp.float32(3)}}
    check(nested, [jnp.ones(3), jnp.float32(2), jnp.float32(3)])
    grads = penalty_and_grad(nested, 0.1, 0.2, backend=backend)[1]
    assert jax.tree.structure(grads) == jax.tree.structure(nested)


def test_masked_leaves_get_zeros(backend: str) -> None:
    params = {"w": jnp.ones(3), "frozen": jnp.ones(2), "step": jnp.int32(7)}
    mask = {"w": True, "frozen": False, "step": False}
    value, grads = penalty_and_grad(params, 1.0, 0.0, mask=mask, backend=backend)
    assert float(value) == 3.0
    np.testing.assert_array_equal(grads["frozen"], np.zeros(2))
    assert grads["step"].dtype == jax.dtypes.float0
    expected = jax.grad(lambda p: penalty(p, 1.0, 0.0, mask=mask, backend=backend), allow_int=True)(params)
    jax.tree.map(np.testing.assert_array_equal, grads, expected)
    assert sums(params, mask=lambda p: mask, backend=backend).paths == ("w",)


def test_regularizer_is_a_static_argument() -> None:
    @jax.jit
    def f(p: Tree) -> Any:
        return fp.L1L2(0.1, 0.2)(p)

    g = jax.jit(lambda reg, p: reg(p), static_argnums=0)
    np.testing.assert_allclose(f(tree()), g(fp.L1L2(0.1, 0.2), tree()))
    assert g._cache_size() == 1
    g(fp.L1L2(0.1, 0.2), tree())
    assert g._cache_size() == 1
