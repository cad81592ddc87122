"""Names for the types of the public arguments. The same names stand in `fused_penalty.jax.types`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor, nn

from .._core.rules import Rule

Params: TypeAlias = nn.Module | Mapping[str, Any] | Iterable[Any]
"""A Module (its parameters), a mapping, which may be nested, or an iterable of tensors or of (name, tensor) pairs."""

Scalar: TypeAlias = float | np.number | np.ndarray | Tensor
"""A number, or a 0-d tensor."""

Strength: TypeAlias = Scalar | Rule | Mapping[str, Any] | Sequence[Any]
"""l1 or l2: a scalar >= 0, a rule (`by_path` and its like), a mapping from names, or leading parts of names, to
scalars, or a list of scalars for a list of params."""

Step: TypeAlias = Scalar
"""The length of a proximal step, >= 0."""

Mask: TypeAlias = bool | Rule | Mapping[str, Any] | Sequence[Any] | Callable[[Any], Any]
"""Which leaves count: a bool, a rule, a mapping or list of bools, or a function of params that returns one of these."""

Anchor: TypeAlias = Params
"""What the penalty is measured from: tensors that pair with params, by name or by position."""

Frozen: TypeAlias = Literal["count", "skip"]
"""Whether frozen parameters, those that require no grad, count."""

Mode: TypeAlias = Literal["grad", "prox"]
"""How `attach` applies the penalty: its gradient before the step, or its proximal step after it."""

Metric: TypeAlias = Literal["auto", "euclidean"]
"""In which metric `attach` makes the proximal step: the optimizer's own, or the euclidean one."""
