"""No model-size copy: the penalty in a donated training step costs what the hand-written decay step costs.

XLA orders an in-place update after all reads it can see. The gradient of a naive penalty does not depend
on its sums, so XLA copies every donated parameter; ours depends on the launch through the echo.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fused_penalty.jax import penalty

L1, L2 = 1e-5, 1e-4
LAYERS, WIDTH = 6, 512  # 6 MiB of parameters: a copy of the model stands out
MODEL = 4 * LAYERS * WIDTH * (WIDTH + 1)
OPTIMIZERS = {
    "sgd": optax.sgd(1e-2),
    "momentum": optax.sgd(1e-2, momentum=0.9),
    "adamw": optax.adamw(1e-3),
    "rmsprop": optax.rmsprop(1e-3),
}
STRENGTHS = {"uniform": (L1, L2), "by_group": ({"w": L1, "b": 0.0}, {"w": L2, "b": 2 * L2})}
Params = dict[str, Any]


def params() -> list[Params]:
    rng = np.random.default_rng(0)
    shapes = {"w": (WIDTH, WIDTH), "b": (WIDTH,)}
    return [
        {k: jnp.asarray(rng.standard_normal(s, np.float32) * 0.05) for k, s in shapes.items()} for _ in range(LAYERS)
    ]


def mlp_loss(p: list[Params], x: jax.Array, y: jax.Array) -> jax.Array:
    for layer in p:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return jnp.mean((x - y) ** 2)


def step_with(gradient: Callable[..., Any], optimizer: optax.GradientTransformation) -> Any:
    def step(p: Any, state: Any, *data: Any) -> Any:
        value, g = gradient(p, *data)
        updates, state = optimizer.update(g, state, p)
        return optax.apply_updates(p, updates), state, value

    return jax.jit(step, donate_argnums=(0, 1))


def strengths_of(p: Any, which: str, k: int) -> Any:
    value = STRENGTHS[which][k]
    return [value] * LAYERS if isinstance(value, dict) else value


def decay(p: Any, which: str) -> Any:
    def leaf(path: Any, w: jax.Array) -> jax.Array:
        a, b = (v[path[-1].key] if isinstance(v, dict) else v for v in STRENGTHS[which])
        return a * jnp.sign(w) + 2 * b * w

    return jax.tree_util.tree_map_with_path(leaf, p)


def external(kind: str, which: str) -> Callable[..., Any]:
    """Gradients come from outside; the penalty's is added."""

    def gradient(p: Any, g: Any) -> Any:
        if kind == "decay":
            return jnp.float32(0), jax.tree.map(jnp.add, g, decay(p, which))
        value, extra = jax.value_and_grad(pen(kind, which))(p)
        return value, jax.tree.map(jnp.add, g, extra)

    return gradient


def with_loss(kind: str, which: str) -> Callable[..., Any]:
    """An MLP's loss plus the penalty, differentiated together."""

    def gradient(p: Any, x: jax.Array, y: jax.Array) -> Any:
        if kind == "decay":
            value, g = jax.value_and_grad(mlp_loss)(p, x, y)
            return value, jax.tree.map(jnp.add, g, decay(p, which))
        return jax.value_and_grad(lambda p: mlp_loss(p, x, y) + pen(kind, which)(p))(p)

    return gradient


def pen(kind: str, which: str) -> Callable[[Any], Any]:
    if kind == "naive":
        return lambda p: sum(L1 * jnp.sum(jnp.abs(x)) + L2 * jnp.sum(x * x) for x in jax.tree.leaves(p))
    return lambda p: penalty(p, strengths_of(p, which, 0), strengths_of(p, which, 1), backend="cpu")


def compiled(kind: str, case: str, optimizer: str, which: str, mesh: Any = None) -> tuple[int, int]:
    """(copies of arrays of a leaf's size, bytes of temporary memory) of the compiled step, on each device."""
    p = params()
    rows = WIDTH
    if mesh is not None:
        p, rows = jax.device_put(p, NamedSharding(mesh, PartitionSpec("x"))), WIDTH // mesh.size
    o = OPTIMIZERS[optimizer]
    if case == "external":
        step, data = step_with(external(kind, which), o), (p,)
    else:
        x = jnp.ones((32, WIDTH))
        step, data = step_with(with_loss(kind, which), o), (x, x)
    executable = step.lower(p, o.init(p), *data).compile()
    text = executable.as_text()
    weight = re.escape(f"f32[{rows},{WIDTH}]")
    copies = len(re.findall(weight + r"\S* (?:copy|copy-start)\(", text))
    return copies, executable.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("which", STRENGTHS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", ["external", "mlp"])
def test_step_has_no_copy_that_the_decay_step_lacks(case: str, optimizer: str, which: str) -> None:
    copies, temp = compiled("fused", case, optimizer, which)
    decay_copies, decay_temp = compiled("decay", case, optimizer, which)
    assert copies <= decay_copies
    assert temp <= decay_temp + 2**20
    if case == "external":
        assert copies == 0


@pytest.mark.parametrize("kind", ["fused", "naive"])
def test_a_step_towards_an_anchor_has_no_copy(kind: str) -> None:
    """Each leaf and its anchor are read once; the naive sum keeps the differences."""

    def value(p: Any, anchor: Any) -> jax.Array:
        if kind == "fused":
            return penalty(p, L1, L2, anchor=anchor, backend="cpu")
        d = jax.tree.map(jnp.subtract, p, anchor)
        return sum(L1 * jnp.sum(jnp.abs(x)) + L2 * jnp.sum(x * x) for x in jax.tree.leaves(d))

    def step(p: Any, anchor: Any, g: Any) -> Any:
        found, extra = jax.value_and_grad(value)(p, anchor)
        return jax.tree.map(lambda w, g, e: w - 1e-2 * (g + e), p, g, extra), found

    p = params()
    executable = jax.jit(step, donate_argnums=0).lower(p, p, p).compile()
    temp = executable.memory_analysis().temp_size_in_bytes
    copies = len(re.findall(rf"f32\[{WIDTH},{WIDTH}\]\S* (?:copy|copy-start)\(", executable.as_text()))
    if kind == "fused":
        assert (copies, temp < 2**14) == (0, True)
    else:  # the test of the test
        assert temp >= 0.9 * MODEL


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_sharded_step_has_no_copy(optimizer: str, axes: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axes,))
    with jax.set_mesh(mesh):
        copies, temp = compiled("fused", "external", optimizer, "by_group", mesh)
        _, decay_temp = compiled("decay", "external", optimizer, "by_group", mesh)
        naive_copies, naive_temp = compiled("naive", "external", optimizer, "by_group", mesh)
    assert copies == 0
    assert temp <= decay_temp + 2**14
    assert naive_copies >= LAYERS  # the test of the test
    assert naive_temp >= 0.9 * MODEL / mesh.size


def test_the_naive_sum_does_copy() -> None:
    """The test of the test: what is counted above finds the copies of the naive penalty."""
    copies, temp = compiled("naive", "external", "sgd", "uniform")
    assert copies >= LAYERS
    assert temp >= 0.9 * MODEL


def test_the_step_computes_what_the_formula_says() -> None:
    p, g = params(), params()
    before = jax.tree.map(np.asarray, p)
    step = step_with(external("fused", "by_group"), OPTIMIZERS["sgd"])
    after, _, value = step(p, OPTIMIZERS["sgd"].init(p), g)
    expected = jax.tree.map(lambda w, g, d: w - 1e-2 * (g + d), before, g, decay(before, "by_group"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after, expected)
    exact = sum(
        L1 * np.abs(x["w"].astype(np.float64)).sum()
        + L2 * (x["w"].astype(np.float64) ** 2).sum()
        + 2 * L2 * (x["b"].astype(np.float64) ** 2).sum()
        for x in before
    )
    np.testing.assert_allclose(float(value), exact, rtol=1e-6)


def test_one_call_a_penalty() -> None:
    """The compiled module holds one custom call for a value and for a value and gradient."""
    p = params()
    for f in (pen("fused", "uniform"), jax.value_and_grad(pen("fused", "by_group"))):
        text = jax.jit(f).lower(p).compile().as_text()
        assert len(re.findall(r'custom_call_target="fused_penalty', text)) == 1
