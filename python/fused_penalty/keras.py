"""Keras 3 on JAX or PyTorch: the penalty of a whole model in one launch, and regularizers that Keras can save.

    import fused_penalty.keras
    model = fused_penalty.keras.PenalizedModel(inputs, outputs)
    model.compile(optimizer="adam", loss="mse", penalty=fp.L1L2(l2=1e-4))

Importing this module makes Keras know `L1L2`, `L1` and `L2`. It is imported when one of them is made, if Keras is; a
program that only loads a model must import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from ._core.errors import bad, describe
from .regularizers import L1, L1L2, L2

__all__ = ["Penalized", "PenalizedModel", "params"]

# Before its version 3.15 Keras takes nothing else. A class that has no base cannot be given one, hence `Regularizer`.
L1L2.__bases__ += (keras.Regularizer,)
PACKAGE = "fused_penalty"  # the first part of the names under which Keras saves
for kind in (L1L2, L1, L2):
    keras.saving.register_keras_serializable(PACKAGE)(kind)


def params(of: keras.Layer | keras.Variable | Iterable[Any] | Mapping[str, Any]) -> Any:
    """Return what Keras keeps in Variables as arrays of its backend, for the verbs of `fused_penalty.jax` or `.torch`.

    Args:
      of: A Model or another Layer, whose trainable variables are meant, a Variable, or containers of Variables.

    Returns:
      For a Layer or a list of Variables a dict from Keras' path, with dots, to array, or a list of arrays if paths are
      not unique; for a Variable its array; for other containers the same containers with arrays.

    Raises:
      TypeError: Keras runs on another backend than JAX or PyTorch.

    Example:
      >>> import keras
      >>> from fused_penalty.keras import params
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")], name="net")
      >>> {path: tuple(x.shape) for path, x in params(model).items()}
      {'net.dense.kernel': (3, 2), 'net.dense.bias': (2,)}
    """
    if (backend := keras.backend.backend()) not in ("jax", "torch"):
        raise bad(
            TypeError, "parameters", f"Keras runs on {backend}, of which fused_penalty has no kernels",
            "Set KERAS_BACKEND to jax or torch before Keras is imported, or use keras.regularizers",
        )  # fmt: skip
    if isinstance(of, keras.Layer):
        of = of.trainable_variables
    if isinstance(of, (list, tuple)) and all(isinstance(v, keras.Variable) for v in of):
        paths = [v.path.replace("/", ".") for v in of]
        values = [v.value for v in of]
        return dict(zip(paths, values, strict=True)) if len(set(paths)) == len(paths) else values
    return keras.tree.map_structure(lambda v: v.value if isinstance(v, keras.Variable) else v, of)


class Penalized:
    """What makes a subclass of keras.Model take a penalty: `class MyModel(Penalized, keras.Model)`.

    `compile(..., penalty=...)` adds the penalty of all trainable weights to the loss of `fit` and `evaluate`, from one
    launch, where a `kernel_regularizer` of each layer needs one for each. It is part of what compile sets: saving,
    loading and cloning the model keep it. For a model that is made of inputs and outputs see `PenalizedModel`.

    Raises:
      TypeError: As `PenalizedModel`.

    Example:
      >>> import keras
      >>> import fused_penalty as fp
      >>> from fused_penalty.keras import Penalized
      >>> class Linear(Penalized, keras.Model):
      ...     def __init__(self):
      ...         super().__init__()
      ...         self.dense = keras.layers.Dense(1, kernel_initializer="ones")
      ...     def call(self, x):
      ...         return self.dense(x)
      >>> model = Linear()
      >>> model.compile(loss="mse", penalty=fp.L1(0.5))
      >>> model.evaluate(keras.ops.zeros((1, 4)), keras.ops.zeros((1, 1)), verbose=0)
      2.0
    """

    penalty: L1L2 | None = None

    def compile(self, *args: Any, penalty: L1L2 | None = None, **kwargs: Any) -> None:
        """Set, beside what keras.Model's `compile` takes, the penalty: an `L1L2`, `L1` or `L2` of fused_penalty."""
        if penalty is not None and not isinstance(penalty, L1L2):
            raise bad(
                TypeError, "penalty", f"{describe(penalty)} is not a regularizer of fused_penalty",
                "Write penalty=fused_penalty.L1L2(l1=1e-5, l2=1e-4)",
            )  # fmt: skip
        super().compile(*args, **kwargs)  # type: ignore[misc]
        self.penalty = penalty

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Compute keras.Model's loss, plus the penalty."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)  # type: ignore[misc]
        return loss if self.penalty is None else loss + self.penalty(self)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return what Keras saves of `compile`."""
        config = super().get_compile_config()  # type: ignore[misc]
        return config and {**config, "penalty": keras.saving.serialize_keras_object(self.penalty)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was. Keras' own method refuses where `compile` is another one."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:  # type: ignore[attr-defined]
            self.optimizer.build(self.trainable_variables)  # type: ignore[attr-defined]


@keras.saving.register_keras_serializable(PACKAGE)
class PenalizedModel(Penalized, keras.Model):
    """keras.Model with a penalty of all its trainable weights, from one launch: `compile(..., penalty=...)`.

    The penalty is part of the loss, so Keras' compiled train step of either backend has it. As Keras does with
    regularizers, `evaluate` counts it, too. Rules see the variables' paths: `fp.by_path({"*.kernel": 1e-4},
    default=0.0)`.

    Args:
      args, kwargs: As in keras.Model: inputs and outputs. An existing model is taken over, weights included, by
        `PenalizedModel(model.inputs, model.outputs)`. To subclass, see `Penalized`.

    Raises:
      TypeError: (from `compile`) the penalty is none of `L1L2`, `L1`, `L2`; (from `fit`) Keras runs on another backend.

    Example:
      >>> import keras
      >>> import fused_penalty as fp
      >>> from fused_penalty.keras import PenalizedModel
      >>> inputs = keras.Input((4,))
      >>> model = PenalizedModel(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
      >>> model.compile(loss="mse", penalty=fp.L1L2(l1=fp.by_path({"*.kernel": 0.5}, default=0.0)))
      >>> model.evaluate(keras.ops.zeros((1, 4)), keras.ops.zeros((1, 1)), verbose=0)
      2.0
    """
