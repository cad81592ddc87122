"""Names for the types of the public arguments. The same names stand in `fused_penalty.torch.types`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from .._core.rules import Rule

PyTree: TypeAlias = Any
"""Any pytree; type checkers have no type for these."""

Params: TypeAlias = PyTree
"""A pytree of arrays, numpy arrays or floats."""

Scalar: TypeAlias = float | np.number | np.ndarray | jax.Array
"""A number, or a 0-d array, which may be traced."""

Strength: TypeAlias = Scalar | Rule | PyTree
"""l1 or l2: a scalar >= 0, a rule (`by_path` and its like), or a prefix tree of scalars."""

Step: TypeAlias = Scalar
"""The length of a proximal step, >= 0."""

Mask: TypeAlias = bool | Rule | Callable[[Params], Any] | PyTree
"""Which leaves count: a bool, a rule, a prefix tree of bools, or a function of params that returns one of these."""

Anchor: TypeAlias = Params
"""What the penalty is measured from: a pytree like params."""
