"""`fused_penalty.jax.optim` under the transformations of JAX, on meshes, and what its compiled step costs."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.scale.hlo import counts
from fused_penalty.jax.optim import adam, adamw, sgd
from tests.jax_only.meshes import mesh_of, small

ADAM = functools.partial(adamw, 0.1, l1=0.05, l2=0.1)
MADE = {"sgd": functools.partial(sgd, 0.1, l1=0.05, l2=0.1), "adamw": ADAM}


def close(a: Any, b: Any, rtol: float = 1e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


def test_an_ensemble_is_one_call() -> None:
    """Members differ in params, gradients, rate and strength; the summary is each member's own."""
    params, grads = small(0, (3,)), small(1, (3,))
    rates, strengths = jnp.array([0.1, 0.2, 0.3]), jnp.array([0.05, 0.0, 0.2])

    def step(params: Any, grads: Any, rate: Any, l1: Any) -> Any:
        optimizer = adamw(rate, l1=l1)
        return optimizer.step(params, grads, optimizer.init(params))

    batched = jax.jit(jax.vmap(step))
    found = batched(params, grads, rates, strengths)
    for i in range(3):
        mine = jax.tree.map(lambda x: x[i], (params, grads, rates, strengths))  # noqa: B023  # used at once
        close(jax.tree.map(lambda x: x[i], found), step(*mine))  # noqa: B023
    hlo = batched.lower(params, grads, rates, strengths).compile().as_text()
    assert counts(hlo)["launches"] == 1


def test_scan_is_as_calls_one_by_one() -> None:
    params, grads = small(0), small(1)
    optimizer = ADAM()
    want, state = params, optimizer.init(params)
    penalties = []
    for _ in range(4):
        want, state, summary = jax.jit(optimizer.step)(want, grads, state)
        penalties.append(summary.penalty)

    def body(carry: Any, _: Any) -> Any:
        *carry, summary = optimizer.step(carry[0], grads, carry[1])
        return tuple(carry), summary.penalty

    (found, _), seen = jax.jit(lambda p, s: jax.lax.scan(body, (p, s), None, length=4))(params, optimizer.init(params))
    close(found, want)
    np.testing.assert_array_equal(seen, jnp.stack(penalties))


@pytest.mark.parametrize("name", MADE)
def test_derivatives_are_those_of_the_formula(name: str) -> None:
    """By the learning rate and the gradients, through two steps: against finite differences in float64."""
    with jax.enable_x64(True):
        params, grads = (jax.tree.map(lambda x: x.astype(jnp.float64), small(s)) for s in (0, 1))

        def loss(rate: Any, grads: Any) -> Any:
            optimizer = sgd(rate, 0.9, l1=0.05, l2=0.1) if name == "sgd" else adamw(rate, l1=0.05, l2=0.1)
            new, state, _ = optimizer.step(params, grads, optimizer.init(params))
            new, _, _ = optimizer.step(new, grads, state)
            return sum(jnp.sum(x**2) for x in jax.tree.leaves(new))

        by_rate, by_grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(0.1, grads)
        value, h = jax.jit(loss), 1e-6
        np.testing.assert_allclose(by_rate, (value(0.1 + h, grads) - value(0.1 - h, grads)) / (2 * h), rtol=1e-6)
        direction = jax.tree.map(jnp.cos, grads)
        ahead, back = (jax.tree.map(lambda g, d: g + s * d, grads, direction) for s in (h, -h))  # noqa: B023
        want = (value(0.1, ahead) - value(0.1, back)) / (2 * h)
        found = sum(jnp.vdot(x, d) for x, d in zip(*map(jax.tree.leaves, (by_grads, direction)), strict=True))
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_without_jit() -> None:
    params, grads = small(0), small(1)
    optimizer = ADAM()
    want = jax.jit(optimizer.step)(params, grads, optimizer.init(params))
    close(optimizer.step(params, grads, optimizer.init(params)), want)
    with jax.disable_jit():
        close(optimizer.step(params, grads, optimizer.init(params)), want)


SPECS = {"w": P("x", "y"), "b": P("y")}


@pytest.mark.parametrize("name", MADE)
def test_on_a_mesh(name: str, kind: str, backend: str) -> None:
    """Each device moves its own parts in one call; only a summary that is used costs an all-reduce."""
    mesh = mesh_of("2x4", kind)
    params, grads = small(0), small(1)
    params["odd"] = np.float32(0.01)  # one more slot: all devices hold it
    grads["odd"] = np.float32(0.0)
    optimizer = MADE[name](backend=backend)
    want = jax.jit(optimizer.step)(params, grads, optimizer.init(params))

    def place(tree: Any) -> Any:
        return {n: jax.device_put(x, NamedSharding(mesh, SPECS.get(n, P()))) for n, x in tree.items()}

    with jax.set_mesh(mesh):
        p, g = place(params), place(grads)
        state = optimizer.init(p)
        step = jax.jit(optimizer.step, donate_argnums=(0, 2))
        blind = jax.jit(lambda *a: optimizer.step(*a)[:2])
        hlo, less = (f.lower(p, g, state).compile().as_text() for f in (step, blind))
        found = step(p, g, state)
    close(found, want)
    assert found[0]["w"].sharding.is_equivalent_to(NamedSharding(mesh, SPECS["w"]), 2)
    assert int(found[2].zeros) == int(want[2].zeros)
    collectives = {k: v for k, v in counts(less).items() if k != "launches"}
    assert not any(collectives.values()), collectives
    assert counts(hlo)["all_gathers"] == counts(hlo)["other_collectives"] == 0
    assert 1 <= counts(hlo)["all_reduces"] <= 2  # reals and counts, which XLA may put into one
    if backend == "cpu":
        assert counts(hlo)["launches"] == counts(less)["launches"] == 1


def test_inside_shard_map() -> None:
    """The step of the local parts, with leaves that vary over different axes."""
    mesh = mesh_of("2x4", "auto")
    params, grads = small(0), small(1)
    optimizer = sgd(0.1, 0.9, l1=0.05)
    want, _, _ = optimizer.step(params, grads, optimizer.init(params))

    def local(p: Any, g: Any) -> Any:
        return optimizer.step(p, g, optimizer.init(p))[0]

    with jax.set_mesh(mesh):
        found = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(SPECS, SPECS), out_specs=SPECS))(params, grads)
    close(found, want)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "amsgrad"])
def test_a_donated_step_copies_nothing(name: str) -> None:
    """One custom call; beside scalars no temporary memory, and every array stays where it is."""
    make = {
        "sgd": MADE["sgd"],
        "momentum": functools.partial(sgd, 0.1, 0.9, l1=0.05),
        "adamw": ADAM,
        "amsgrad": functools.partial(adam, 0.1, amsgrad=True, l1=0.05),
    }[name]
    params = {"w": jnp.ones((512, 512)), "b": jnp.ones(512)}
    optimizer = make()
    state = optimizer.init(params)
    compiled = jax.jit(optimizer.step, donate_argnums=(0, 2)).lower(params, params, state).compile()
    hlo, memory = compiled.as_text(), compiled.memory_analysis()
    assert counts(hlo)["launches"] == 1
    assert not re.search(r"f32\[512,512\][^=]* copy\(", hlo)
    assert memory.temp_size_in_bytes < 4096
    kept = sum(x.nbytes for x in jax.tree.leaves((params, state)))
    assert memory.alias_size_in_bytes >= kept - 64


def test_what_is_still_needed_is_copied() -> None:
    """A step whose params are not donated, and are used after it."""
    params, grads = small(0), small(1)
    optimizer = ADAM()

    @jax.jit
    def step(p: Any, g: Any) -> Any:
        new, _, _ = optimizer.step(p, g, optimizer.init(p))
        return new, jax.tree.map(lambda x: 2 * x, p), jax.tree.map(lambda x: 3 * x, g)

    new, twice, thrice = step(params, grads)
    close((twice, thrice), (jax.tree.map(lambda x: 2 * x, params), jax.tree.map(lambda x: 3 * x, grads)))
    close(new, optimizer.step(params, grads, optimizer.init(params))[0])


def test_thousands_of_leaves_are_traced_without_the_reference() -> None:
    """The reference has some fifty operations a leaf."""
    params = {f"w{i}": jnp.ones(4) for i in range(300)}
    optimizer = sgd(0.1, l1=0.05)
    jaxpr = str(jax.make_jaxpr(optimizer.step)(params, params, optimizer.init(params)))
    assert len(re.findall(r" = ", jaxpr)) < 4 * len(params)
