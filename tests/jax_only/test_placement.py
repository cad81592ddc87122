"""Parameters on another device, on a mesh and after it, and in places that do not belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fused_penalty.jax import penalty, penalty_and_grad, prox, stats, sums

X = np.arange(-32, 32, dtype=np.float32).reshape(8, 8)
VALUE = float(0.1 * np.abs(X).sum() + 0.2 * np.square(X).sum())


def test_another_device() -> None:
    device = jax.devices()[3]
    x = jax.device_put(X, device)
    value, (grad,) = penalty_and_grad([x], 0.1, 0.2)
    assert value.devices() == grad.devices() == {device}
    np.testing.assert_allclose(value, VALUE, rtol=1e-6)
    with jax.default_device(jax.devices()[2]):
        np.testing.assert_allclose(penalty([X], 0.1, 0.2), VALUE, rtol=1e-6)


def test_sharded_over_a_mesh_and_unsharded_after_it() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    x = jax.device_put(X, NamedSharding(mesh, PartitionSpec("x")))
    for _ in range(2):
        with jax.set_mesh(mesh):
            value, grad = jax.jit(jax.value_and_grad(lambda x: penalty([x], 0.1, 0.2)))(x)
        np.testing.assert_allclose(value, VALUE, rtol=1e-6)
        assert grad.sharding.is_equivalent_to(x.sharding, 2)
        # a static strength made under the mesh must not leak out of it
        np.testing.assert_allclose(penalty([jnp.asarray(X)], 0.1, 0.2), VALUE, rtol=1e-6)
        np.testing.assert_allclose(penalty([jax.device_put(X, jax.devices()[5])], 0.1, 0.2), VALUE, rtol=1e-6)


VERBS = (penalty, penalty_and_grad, sums, stats, prox)


def mesh_of(sizes: tuple[int, ...], axes: AxisType, count: int = 8) -> Mesh:
    return jax.make_mesh(
        sizes, tuple("xyz"[: len(sizes)]), axis_types=(axes,) * len(sizes), devices=jax.devices()[:count]
    )


def on(mesh: Mesh, *spec: str) -> jax.Array:
    return jax.device_put(X, NamedSharding(mesh, PartitionSpec(*spec)))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
def test_leaves_on_two_meshes(axes: AxisType, verb: Any) -> None:
    a, b = on(mesh_of((8,), axes), "x"), on(mesh_of((2, 4), axes), "x", "y")
    with pytest.raises(ValueError, match=r"params at 'b'.* the mesh \{'x': 2, 'y': 4\}.* 'a' on the mesh.*device_put"):
        verb({"a": a, "b": b})
    half = on(mesh_of((4,), axes, count=4), "x")
    with pytest.raises(ValueError, match=r"params at 'b'.*\[0, 1, 2, 3\]"):
        verb({"a": a, "b": half})


@pytest.mark.parametrize("verb", VERBS)
def test_leaves_on_two_devices(verb: Any) -> None:
    a, b = (jax.device_put(X, d) for d in jax.devices()[1:3])
    with pytest.raises(ValueError, match=r"params at '1': it lies on the device .*2.*params at '0' on .*1"):
        verb([a, b])
    with pytest.raises(ValueError, match=r"anchor at '0'"):
        verb([a], anchor=[b])
    assert np.isfinite(np.asarray(penalty([a, jnp.asarray(X)], 0.1, 0.2)))  # where JAX may choose, it does


def test_two_meshes_inside_jit() -> None:
    a, b = on(mesh_of((8,), AxisType.Explicit), "x"), on(mesh_of((2, 4), AxisType.Explicit), "x", "y")
    with pytest.raises(ValueError, match="'b'"):
        jax.jit(lambda p: penalty(p, 0.1, 0.2))({"a": a, "b": b})


def test_a_sum_that_is_still_pending() -> None:
    mesh = mesh_of((8,), AxisType.Explicit)

    def f(a: jax.Array, b: jax.Array) -> jax.Array:
        product = jnp.einsum("ij,jk->ik", a, b, out_sharding=PartitionSpec(unreduced={"x"}))
        return penalty({"product": product}, 0.1, 0.2)

    with jax.set_mesh(mesh), pytest.raises(ValueError, match=r"params at 'product'.* x is still pending.*reshard"):
        jax.jit(f)(on(mesh, None, "x"), on(mesh, "x"))


def test_an_axis_that_the_mesh_lacks_is_refused_by_jax() -> None:
    with pytest.raises(ValueError, match="not found in mesh"):
        on(mesh_of((8,), AxisType.Auto), "z")


def test_other_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="backend"):
        penalty([jax.device_put(X, jax.devices()[1])], 0.1, 0.2, backend="no such")
