"""Keras 3: the regularizers in its layers, and a penalty of the whole model. `test_keras.py` runs this file once for
each backend, in a process of its own, as Keras chooses its backend when it is imported."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", minversion="3", reason="Keras 3 is not installed (make clients)")

import fused_penalty as fp
from fused_penalty._core.operations import Op
from fused_penalty.keras import Penalized, PenalizedModel, params
from tests.support.fresh import hiding, run_fresh

from .documented import check_docstrings, run
from .twins import L1, L2, RATE, STEPS

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 4)).astype(np.float32)
Y = X @ np.array([[1.0], [0.0], [-1.0], [0.5]], np.float32)
PEER = keras.regularizers.L1L2(L1, L2)  # Keras' own, on kernels, which are never exactly 0


def kernels(strength: float) -> Any:
    return fp.by_path({"*.kernel": strength}, default=0.0)


WHOLE = fp.L1L2(kernels(L1), kernels(L2))


def build(regularizer: Any = None, kind: Any = keras.Model, depth: int = 2, **layer: Any) -> Any:
    keras.utils.set_random_seed(1)
    inputs = h = keras.Input((4,))
    for _ in range(depth):
        h = keras.layers.Dense(4, "tanh", kernel_regularizer=regularizer, **layer)(h)
    return kind(inputs, keras.layers.Dense(1, kernel_regularizer=regularizer, **layer)(h))


def fit(model: Any, **options: Any) -> list[Any]:
    """The losses and the weights of a training run."""
    model.compile(**({"optimizer": keras.optimizers.SGD(RATE), "loss": "mse"} | options))
    history = model.fit(X, Y, epochs=STEPS, batch_size=16, shuffle=False, verbose=0).history["loss"]
    return [np.array(history), *map(keras.ops.convert_to_numpy, model.trainable_weights)]


def same(found: list[Any], expected: list[Any], rtol: float = 2e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def number(x: Any) -> float:
    return float(keras.ops.convert_to_numpy(x))


# Keras' own tests of its regularizers, as far as they concern these three.

VALUE = RNG.random((4, 4)).astype(np.float32)
ABS, SQUARE = float(abs(VALUE).sum()), float((VALUE**2).sum())


@pytest.mark.parametrize(
    ("regularizer", "value", "expected"),
    [
        (fp.L1(0.1), VALUE, 0.1 * ABS),
        (fp.L1(l1=0.1), -VALUE, 0.1 * ABS),
        (fp.L2(l2=0.1), VALUE, 0.1 * SQUARE),
        (fp.L1L2(l1=0.1, l2=0.2), VALUE, 0.1 * ABS + 0.2 * SQUARE),
        (fp.L1L2(l1=0.1), VALUE, 0.1 * ABS),
        (fp.L1L2(l1=0.1, l2=0.2), 0 * VALUE, 0.0),
        (fp.L1(0.0), VALUE, 0.0),
        (fp.L1L2(0.0, 0.0), VALUE, 0.0),
    ],
)
def test_values_of_variables(regularizer: Any, value: Any, expected: float) -> None:
    assert number(regularizer(keras.Variable(value))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("regularizer", [fp.L1(0.1), fp.L2(0.1), fp.L1L2(0.1, 0.2, weight=2.0, name="mine"), WHOLE])
def test_serialization(regularizer: Any) -> None:
    saved = keras.regularizers.serialize(regularizer)
    assert keras.regularizers.deserialize(saved) == keras.regularizers.get(saved) == regularizer
    assert keras.regularizers.get(regularizer) is regularizer


def test_losses_of_a_layer() -> None:
    """Of its kernel, its bias and its output."""

    def losses(one: Any, two: Any) -> Any:
        regularizers = {"kernel_regularizer": one, "bias_regularizer": two, "activity_regularizer": two}
        layer = keras.layers.Dense(5, kernel_initializer="ones", bias_initializer="ones", **regularizers)
        layer(keras.ops.ones((5, 5)) * 2.0)
        return sorted(map(number, layer.losses))

    expected = losses(keras.regularizers.L1(0.01), keras.regularizers.L2(0.02))
    assert losses(fp.L1(0.01), fp.L2(0.02)) == pytest.approx(expected, rel=1e-6)
    assert len(expected) == 3


# Trainings


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_as_the_regularizer_of_layers(optimizer: str) -> None:
    same(fit(build(fp.L1L2(L1, L2)), optimizer=optimizer), fit(build(PEER), optimizer=optimizer))


@pytest.mark.parametrize("eagerly", [False, True])
def test_of_the_whole_model(eagerly: bool) -> None:
    model, twin = build(kind=PenalizedModel), build(PEER)
    options = {"run_eagerly": eagerly}
    same(fit(model, penalty=WHOLE, **options), fit(twin, **options))
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(twin.evaluate(X, Y, verbose=0), rel=1e-5)


def test_mixed_precision_penalises_the_variables_themselves() -> None:
    """Not what they are cast to within a layer."""
    model, twin = (build(r, kind, dtype="mixed_bfloat16") for r, kind in ((None, PenalizedModel), (PEER, keras.Model)))
    same(fit(model, penalty=WHOLE), fit(twin), rtol=1e-2)
    assert number(WHOLE(model)) == pytest.approx(number(sum(twin.losses)), rel=2e-2)
    assert number(WHOLE(model)) == pytest.approx(sum(number(PEER(v.value)) for v in model.weights if v.ndim == 2))


def test_frozen_layers_do_not_count() -> None:
    model, twin = build(kind=PenalizedModel), build(PEER)
    for m in (model, twin):
        m.layers[1].trainable = False
    same(fit(model, penalty=WHOLE), fit(twin))


class Linear(Penalized, keras.Model):
    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x: Any) -> Any:
        return self.dense(x)


def test_a_subclass() -> None:
    """Beside functional ones, whose first use changes the bases of their class."""
    build(kind=PenalizedModel)
    twin = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones", kernel_regularizer=PEER)])
    same(fit(Linear(), penalty=WHOLE), fit(twin))


def launches(model: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often one step of training calls the kernels for the value of the penalty."""
    if BACKEND == "jax":
        import jax

        variables = ([v.value for v in vs] for vs in (model.non_trainable_variables, model.metrics_variables))
        state = [v.value for v in model.optimizer.variables]
        rest = (*variables, X, Y, None, True, state)
        step = jax.make_jaxpr(jax.grad(lambda trained: model.compute_loss_and_updates(trained, *rest)[0]))
        return calls_in(step([v.value for v in model.trainable_variables]).jaxpr)
    from fused_penalty import _cpu

    calls, launch = [], _cpu.launch
    monkeypatch.setattr(_cpu, "launch", lambda op, *rest: (calls.append(op), launch(op, *rest))[1])
    model.train_on_batch(X, Y)
    return calls.count(Op.SUMS)


def calls_in(jaxpr: Any) -> int:
    inner = [x for eqn in jaxpr.eqns for x in eqn.params.values()]
    return sum(eqn.primitive.name == "fused_penalty" for eqn in jaxpr.eqns) + sum(
        calls_in(getattr(x, "jaxpr", x)) for x in inner if hasattr(getattr(x, "jaxpr", x), "eqns")
    )


@pytest.mark.parametrize(("kind", "expected"), [(PenalizedModel, 1), (keras.Model, 100)])
def test_one_launch_for_a_hundred_layers(kind: Any, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kind is PenalizedModel
    model = build(None if whole else fp.L2(L2), kind, depth=99)
    model.compile(optimizer="sgd", loss="mse", **({"penalty": fp.L2(kernels(L2))} if whole else {}))
    model.train_on_batch(X, Y)
    assert launches(model, monkeypatch) == expected


def test_the_example_of_the_docs() -> None:
    run("Keras")


def test_the_docstrings() -> None:
    check_docstrings("fused_penalty.keras")


# Saving


def test_a_saved_model_is_loaded_elsewhere(tmp_path: Path) -> None:
    """By a program that has imported fused_penalty.keras."""
    file = tmp_path / "model.keras"
    model = build(fp.L1(l1=0.5, name="mine"), PenalizedModel)
    fit(model, penalty=WHOLE)
    model.save(file)
    found = run_fresh(
        f"""
        import keras, numpy as np
        import fused_penalty as fp, fused_penalty.keras
        model = keras.models.load_model({str(file)!r})
        assert model.layers[1].kernel_regularizer == fp.L1(l1=0.5, name="mine")
        print(type(model).__name__, model.penalty)
        ones = np.ones((8, 4), np.float32)
        print(float(model.evaluate(ones, ones[:, :1], verbose=0)))
        """,
        {"PYTHONWARNINGS": "default"},
    ).splitlines()
    assert found[0] == f"PenalizedModel {WHOLE!r}"
    ones = np.ones((8, 4), np.float32)
    assert float(found[1]) == pytest.approx(model.evaluate(ones, ones[:, :1], verbose=0), rel=1e-5)


@pytest.mark.parametrize("copied", ["clone_model", "to_json", "from_config"])
def test_copies_keep_the_penalty(copied: str) -> None:
    model = build(fp.L2(0.5), PenalizedModel)
    model.compile(optimizer="sgd", loss="mse", penalty=WHOLE)
    copy = {
        "clone_model": lambda: keras.models.clone_model(model),
        "to_json": lambda: keras.models.model_from_json(model.to_json()),
        "from_config": lambda: keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model)),
    }[copied]()
    assert type(copy) is PenalizedModel
    assert copy.penalty == WHOLE
    assert copy.layers[1].kernel_regularizer == fp.L2(0.5)


def test_a_regularizer_that_was_made_before_keras_was_imported() -> None:
    """Registers itself when Keras asks for its config. The other framework need not be there."""
    run_fresh(
        hiding(*{"jax": ("torch",), "torch": ("jax", "jaxlib")}[BACKEND])
        + textwrap.dedent("""
            import fused_penalty as fp
            regularizer = fp.L1(0.1)
            import keras
            layer = keras.layers.Dense(1, kernel_regularizer=regularizer)
            assert "fused_penalty.keras" not in sys.modules
            assert keras.layers.Dense.from_config(layer.get_config()).kernel_regularizer == fp.L1(0.1)
            layer.build((None, 2))
            assert len(layer.losses) == 1
        """),
        {"PYTHONWARNINGS": "default"},
    )


def test_other_rules_cannot_be_saved() -> None:
    layer = keras.layers.Dense(1, kernel_regularizer=fp.L1(fp.by_leaf(lambda path, leaf: 1.0)))
    with pytest.raises(TypeError, match="ByLeaf"):
        layer.get_config()


# Parameters


def test_params() -> None:
    model = build()
    found = params(model)
    assert set(found) == {v.path.replace("/", ".") for v in model.trainable_variables}
    kernel, bias = model.layers[1].weights
    assert params(kernel) is kernel.value
    bias.assign_add(keras.ops.ones(4))
    assert number(fp.L1(1.0)({"a": [kernel], "b": bias})) == pytest.approx(number(fp.L1(1.0)(kernel)) + 4)
    assert number(fp.L1(1.0)(model.trainable_variables)) == pytest.approx(number(fp.L1(1.0)(model)))
    twice = [keras.Variable(VALUE, name="w"), keras.Variable(VALUE, name="w")]
    assert number(fp.L1(1.0)(twice)) == pytest.approx(2 * ABS)
    verbs = importlib.import_module(f"fused_penalty.{BACKEND}")
    assert verbs.stats(found).paths == tuple(sorted(found) if BACKEND == "jax" else found)


def test_a_backend_without_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(TypeError, match=r"^parameters: Keras runs on tensorflow, .*\. Set KERAS_BACKEND to jax"):
        fp.L1(0.1)(keras.Variable(VALUE))


def test_a_penalty_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^penalty: .* is not a regularizer of fused_penalty\. Write penalty="):
        build(kind=PenalizedModel).compile(loss="mse", penalty=PEER)


def test_an_old_keras_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2, which some load beside TensorFlow, has no `keras.Variable`."""
    monkeypatch.delattr(keras, "Variable")
    array = keras.ops.convert_to_tensor(VALUE)
    assert number(fp.L1(0.1)([array])) == pytest.approx(0.1 * ABS)
