"""The models of flax and equinox: which of their leaves are parameters, what these are called, what pairs with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict, freeze

import fused_penalty as fp
from fused_penalty.jax import penalty, penalty_and_grad, prox, stats, sums
from fused_penalty.optax import add_penalty_grads, proximal
from tests.support.fresh import run_fresh

L1, L2 = 0.1, 0.2


class Block(nnx.Module):
    """Parameters, running statistics, random state; a list, and a parameter of a class of its own."""

    def __init__(self, rngs: Any) -> None:
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.lora = nnx.LoRA(4, 2, 4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 2, rngs=rngs)])

    def __call__(self, x: Any) -> Any:
        return self.layers[0](self.lora(self.norm(self.linear(x))))


class Tied(nnx.Module):
    def __init__(self, rngs: Any) -> None:
        self.a, self.b = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)
        self.b.kernel = self.a.kernel


@pytest.fixture
def model() -> Block:
    return Block(nnx.Rngs(0))


def params_of(model: Any) -> dict[str, np.ndarray]:
    """The parameters as nnx itself finds them, by dotted path."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(x[...]) for path, x in flat}


def formula(leaves: dict[str, np.ndarray], l1: float = L1, l2: float = L2) -> float:
    return sum(l1 * float(np.abs(x).sum()) + l2 * float((np.float64(x) ** 2).sum()) for x in leaves.values())


# nnx


def test_of_an_nnx_module_the_params_count(model: Block) -> None:
    params = params_of(model)
    assert set(params) == {
        "linear.kernel", "linear.bias", "norm.scale", "norm.bias", "lora.lora_a", "lora.lora_b",
        "layers.0.kernel", "layers.0.bias",
    }  # fmt: skip
    for found in (sums(model), stats(model), sums(nnx.state(model))):
        assert set(found.paths) == set(params)
    for given in (model, nnx.state(model), nnx.split(model)[1], nnx.split(model, nnx.Param, ...)[1], {"m": model}):
        assert float(penalty(given, L1, L2)) == pytest.approx(formula(params), rel=1e-6)
    assert float(fp.L1L2(L1, L2)(model)) == pytest.approx(formula(params), rel=1e-6)
    assert float(penalty(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), L1)) == 0.0


def test_prox_of_an_nnx_module_leaves_the_rest_alone(model: Block) -> None:
    new = prox(model, 0.05)
    assert isinstance(new, Block)
    for name, x in params_of(model).items():
        np.testing.assert_allclose(params_of(new)[name], np.sign(x) * np.maximum(np.abs(x) - 0.05, 0), atol=1e-7)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(new, nnx.BatchStat), nnx.state(model, nnx.BatchStat))
    assert new.dropout.rngs.count[...] == model.dropout.rngs.count[...]


def test_gradients_of_an_nnx_module(model: Block) -> None:
    value, grads = penalty_and_grad(model, L1, L2)
    assert float(value) == pytest.approx(formula(params_of(model)), rel=1e-6)
    for name, x in params_of(model).items():
        np.testing.assert_allclose(params_of(grads)[name], L1 * np.sign(x) + 2 * L2 * x, rtol=1e-6)
    for x in jax.tree.leaves(nnx.state(grads, nnx.BatchStat)):
        np.testing.assert_array_equal(x, np.zeros(4))


@pytest.mark.parametrize("wrap", [nnx.jit, jax.jit], ids=["nnx.jit", "jax.jit"])
def test_an_nnx_module_under_transformations(model: Block, wrap: Any) -> None:
    params = params_of(model)
    assert float(wrap(lambda m: penalty(m, L1, L2))(model)) == pytest.approx(formula(params), rel=1e-6)
    grads = wrap(nnx.grad(lambda m: penalty(m, L1, L2)))(model)
    for path, g in nnx.to_flat_state(grads):
        x = params[".".join(map(str, path))]
        np.testing.assert_allclose(g[...], L1 * np.sign(x) + 2 * L2 * x, rtol=1e-6)


def test_strengths_masks_and_anchors_of_an_nnx_module(model: Block) -> None:
    params = params_of(model)
    weights = {k: x for k, x in params.items() if not k.endswith("bias")}
    rule = fp.by_path({"*bias": 0.0, "*": L1})
    assert float(penalty(model, rule)) == pytest.approx(formula(weights, L1, 0), rel=1e-6)
    matrices = {k: x for k, x in params.items() if x.ndim > 1}
    for mask in (jax.tree.map(lambda x: x.ndim > 1, model), lambda m: jax.tree.map(lambda x: x.ndim > 1, m)):
        assert float(penalty(model, L1, mask=mask)) == pytest.approx(formula(matrices, L1, 0), rel=1e-6)
    by_part = {"linear": {"kernel": L1, "bias": 0.0}, "norm": 0.0, "lora": 0.0, "layers": {0: 0.0}}
    one = {"": params["linear.kernel"]}
    for given in (model, nnx.state(model)):
        assert float(penalty(given, by_part)) == pytest.approx(formula(one, L1, 0), rel=1e-6)
    other = Block(nnx.Rngs(1))
    moved = {k: x - params_of(other)[k] for k, x in params.items()}
    for anchor in (other, nnx.state(other), nnx.state(other, nnx.Param), nnx.to_pure_dict(nnx.state(other, nnx.Param))):
        assert float(penalty(model, L1, L2, anchor=anchor)) == pytest.approx(formula(moved), rel=1e-6)
    with pytest.raises(ValueError, match="anchor"):
        penalty(model, L1, anchor=nnx.state(other.linear))


def test_a_shared_param_counts_once() -> None:
    tied = Tied(nnx.Rngs(0))
    expected = formula(params_of(tied))
    assert len(params_of(tied)) == 3
    assert float(penalty(tied, L1, L2)) == pytest.approx(expected, rel=1e-6)
    assert float(nnx.jit(lambda m: penalty(m, L1, L2))(tied)) == pytest.approx(expected, rel=1e-6)
    x = np.asarray(tied.a.kernel[...])
    np.testing.assert_allclose(nnx.grad(lambda m: penalty(m, L1))(tied)["a"]["kernel"][...], L1 * np.sign(x))
    _, grads = penalty_and_grad(tied, L1)
    new = prox(tied, 0.1)
    for found, want in ((grads, L1 * np.sign(x)), (new, np.sign(x) * np.maximum(np.abs(x) - 0.1, 0))):
        for part in (found.a, found.b):  # as one, or a step with these would tear them apart
            np.testing.assert_allclose(part.kernel[...], want, atol=1e-7)


def test_an_nnx_optimizer(model: Block) -> None:
    before = params_of(model)
    optimizer = nnx.Optimizer(model, optax.chain(add_penalty_grads(L1), optax.sgd(0.5)), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    for name, x in params_of(model).items():
        np.testing.assert_allclose(x, before[name] - 0.5 * L1 * np.sign(before[name]), rtol=1e-6)


# linen


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        init = nn.with_partitioning(nn.initializers.lecun_normal(), ("a", "b"))
        return nn.BatchNorm(use_running_average=False)(nn.Dense(4, kernel_init=init)(x))


def linen_variables() -> Any:
    return Linen().init(jax.random.key(0), jnp.ones((2, 3)))


@pytest.mark.parametrize("freezing", [lambda v: v, freeze], ids=["dict", "FrozenDict"])
def test_all_variables_of_a_linen_module_are_refused(freezing: Any) -> None:
    variables = freezing(linen_variables())
    for call in (penalty, penalty_and_grad, prox):
        with pytest.raises(ValueError, match=r'params: .*batch_stats beside params\. Give variables\["params"\]'):
            call(variables, L1)
    for call in (sums, stats):
        with pytest.raises(ValueError, match="batch_stats beside params"):
            call(variables)
    mask = {"params": True, "batch_stats": False}
    assert float(penalty(variables, L1, mask=mask)) == float(penalty(variables["params"], L1))


def test_a_model_with_a_part_called_params_is_none_of_linens() -> None:
    x = jnp.ones(3)
    assert float(penalty({"params": {"w": x}, "head": {"w": x}}, 1.0)) == 6.0
    assert float(penalty({"params": x, "cache": x}, 1.0)) == 6.0
    assert float(penalty({"params": {"w": x}}, 1.0)) == 3.0


def test_a_box_of_linen_is_no_step_of_a_path() -> None:
    params = linen_variables()["params"]
    names = {"BatchNorm_0.bias", "BatchNorm_0.scale", "Dense_0.bias", "Dense_0.kernel"}
    assert set(sums(params).paths) == names
    kernel = np.asarray(params["Dense_0"]["kernel"].value)
    for l1 in (fp.by_path({"*.kernel": 1.0, "*": 0.0}), {"Dense_0": {"kernel": 1.0, "bias": 0.0}, "BatchNorm_0": 0.0}):
        assert float(penalty(params, l1)) == pytest.approx(float(np.abs(kernel).sum()), rel=1e-6)


def test_a_frozen_dict_pairs_with_a_dict() -> None:
    rng = np.random.default_rng(0)
    plain = {k: {n: rng.standard_normal(3, np.float32) for n in ("kernel", "bias")} for k in ("a", "b")}
    l1, mask = {"a": {"kernel": 0.5, "bias": 0.0}, "b": 0.25}, {"a": True, "b": {"kernel": True, "bias": False}}
    anchor = jax.tree.map(lambda x: x / 2, plain)
    expected = float(penalty(plain, l1, mask=mask, anchor=anchor))
    for params, convert in ((FrozenDict(plain), lambda t: t), (plain, FrozenDict)):
        found = penalty(params, convert(l1), mask=convert(mask), anchor=convert(anchor))
        assert float(found) == expected
    for wrong in ({"a": 0.1}, {"a": 0.1, "b": 0.1, "c": 0.1}, {"a": {"kernel": 0.1}, "b": 0.1}):
        with pytest.raises(ValueError, match="l1: its tree is not a prefix of the tree of params"):
            penalty(FrozenDict(plain), wrong)
    for wrong in ({"a": anchor["a"]}, anchor | {"c": anchor["a"]}):
        with pytest.raises(ValueError, match="anchor at '<root>': its structure"):
            penalty(FrozenDict(plain), l1, anchor=wrong)


def test_flax_is_not_imported_for_the_sake_of_asking() -> None:
    assert run_fresh("""
        import sys, jax.numpy as jnp
        from fused_penalty.jax import penalty
        penalty({"w": jnp.ones(3)}, {"w": 0.1})
        print("flax" in sys.modules)
    """) == "False"  # fmt: skip


# equinox


class Counted(eqx.Module):
    """An array, a counter, a function."""

    weight: Any
    steps: Any
    act: Any

    def __call__(self, x: Any) -> Any:
        return self.act(self.weight @ x)


def counted() -> Counted:
    return Counted(jnp.array([[1.0, -2.0], [0.0, 4.0]]), jnp.int32(3), jax.nn.relu)


def test_a_mask_that_is_a_module_is_not_called() -> None:
    mlp = eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(0))
    mask = jax.tree.map(eqx.is_inexact_array, mlp)
    assert callable(mask)
    arrays = eqx.filter(mlp, eqx.is_inexact_array)
    expected = float(penalty(arrays, L1, L2))
    assert float(penalty(mlp, L1, L2, mask=mask)) == expected
    assert float(penalty(mlp, L1, L2, mask=lambda m: jax.tree.map(eqx.is_inexact_array, m))) == expected
    partial = jax.tree_util.Partial(lambda m: jax.tree.map(eqx.is_inexact_array, m))
    assert float(penalty(mlp, L1, L2, mask=partial)) == expected
    zeros = jax.tree.map(jnp.zeros_like, arrays)
    optimizer = add_penalty_grads(L1, mask=jax.tree.map(eqx.is_inexact_array, arrays))
    updates, _ = optimizer.update(zeros, optimizer.init(arrays), arrays)
    jax.tree.map(lambda u, x: np.testing.assert_allclose(u, L1 * jnp.sign(x), rtol=1e-6), updates, arrays)


def test_the_gradient_beside_a_function_is_none() -> None:
    model = counted()
    value, grads = penalty_and_grad(model, 1.0, mask=jax.tree.map(eqx.is_inexact_array, model))
    assert float(value) == 7.0
    np.testing.assert_array_equal(grads.weight, np.sign(model.weight))
    assert grads.steps.dtype == jax.dtypes.float0
    assert grads.act is None
    np.testing.assert_array_equal(
        eqx.apply_updates(model, eqx.filter(grads, eqx.is_inexact_array)).weight[0], [2.0, -3.0]
    )


@pytest.mark.parametrize("whole", [False, True], ids=["filtered", "whole"])
@pytest.mark.parametrize("anchored", [False, True])
def test_optax_where_the_update_is_none(whole: bool, anchored: bool) -> None:
    """As `optax.add_decayed_weights`, which accepts any params beside an update None."""
    model = counted()
    params = model if whole else eqx.filter(model, eqx.is_array)
    updates = eqx.filter(jax.tree.map(lambda x: jnp.full_like(x, 0.5) if eqx.is_array(x) else x, model),
                         eqx.is_inexact_array)  # fmt: skip
    anchor = jax.tree.map(lambda x: 0 * x if eqx.is_array(x) else x, params) if anchored else None
    ours, theirs = add_penalty_grads(l2=0.05, anchor=anchor), optax.add_decayed_weights(0.1)
    found, _ = ours.update(updates, ours.init(params), params)
    expected, _ = theirs.update(updates, theirs.init(params), params)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-6)
    last = proximal(1.0, learning_rate=2.0, anchor=anchor)
    found, _ = last.update(updates, last.init(params), params)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    moved = np.asarray(model.weight) + 0.5
    np.testing.assert_allclose(found.weight + model.weight, np.sign(moved) * np.maximum(np.abs(moved) - 2.0, 0))
    with pytest.raises(TypeError, match="params at 'steps'"):
        ours.update(jax.tree.map(lambda x: x, params), ours.init(params), params)
