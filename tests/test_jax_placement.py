"""Parameters on another device, on a mesh, and after a mesh: right, if not yet without gathering."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fused_penalty.jax import penalty, penalty_and_grad

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
