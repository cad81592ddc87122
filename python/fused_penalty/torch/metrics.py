"""The metric D in which an adaptive optimizer measures a step: it moves by lr·m / D, element by element.

A proximal step after it must use the same D, or it minimises another function: with the euclidean one an l1 has little
effect after Adam, which divides the loss's gradient by D but not the threshold. D = root·√v + epsilon, where v is an
array of the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._core.errors import bad

Group: TypeAlias = Mapping[str, Any]
State: TypeAlias = Mapping[str, Any]
Value: TypeAlias = float | Tensor


@dataclass(frozen=True)
class Metric:
    """D of one parameter after a step, and the length of the step in it. `second` is v."""

    second: Tensor
    root: Value
    epsilon: Value
    length: Value


Rule = Callable[[Group, State], Metric]


def _adam(group: Group, state: State) -> Metric:
    """Adam, AdamW, NAdam, and those of other libraries with the same state."""
    second = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    return Metric(second, (1 - group["betas"][1] ** _step(state)) ** -0.5, group["eps"], group["lr"])


def _radam(group: Group, state: State) -> Metric:
    """Euclidean while the variance is intractable (the first steps), then Adam's, scaled by the rectification."""
    beta2, t = group["betas"][1], float(_step(state))
    power = beta2**t
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * power / (1 - power)
    if length <= 5:
        return Metric(state["exp_avg_sq"], 0.0, 1.0, group["lr"])
    rectified = (
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    ) ** 0.5 * (1 - power) ** 0.5  # fmt: skip
    return Metric(state["exp_avg_sq"], 1 / rectified, group["eps"] / rectified, group["lr"])


def _rmsprop(group: Group, state: State) -> Metric:
    return Metric(state["square_avg"], 1.0, group["eps"], reach(group))


def _adagrad(group: Group, state: State) -> Metric:
    length = group["lr"] / (1 + (_step(state) - 1) * group["lr_decay"])
    return Metric(state["sum"], 1.0, group["eps"], length)


def reach(group: Group) -> Value:
    """The length of a step in the long run. A constant gradient g makes torch's momentum g·(1 - dampening) /
    (1 - momentum): steps become this much longer than lr, and a proximal step with lr alone would count too little."""
    momentum = group.get("momentum") or 0.0
    if not 0 < momentum < 1:  # none, or one that never settles
        return group["lr"]  # type: ignore[no-any-return]
    length: Value = group["lr"] * (1 - (group.get("dampening") or 0.0)) / (1 - momentum)
    return length


def _step(state: State) -> Value:
    value: Value = state["step"]
    return value.double() if isinstance(value, Tensor) else value


RULES: tuple[tuple[type[Optimizer], Rule], ...] = (
    (torch.optim.Adam, _adam),
    (torch.optim.AdamW, _adam),
    (torch.optim.NAdam, _adam),
    (torch.optim.RAdam, _radam),
    (torch.optim.RMSprop, _rmsprop),
    (torch.optim.Adagrad, _adagrad),
)
ADAPTS = ("betas", "eps", "alpha", "rho", "etas")  # entries of a group that tell of a metric
STATE = "exp_avg_sq"


def rule_of(optimizer: Optimizer, metric: str) -> Rule | None:
    """How to find the optimizer's metric; None for the euclidean one.

    Raises:
      ValueError: `metric` is unknown, or "auto" and the optimizer adapts its steps in a way that is not known.
    """
    if metric not in ("auto", "euclidean"):
        raise bad(ValueError, "metric", f"{metric!r} is unknown", 'Use "auto" or "euclidean"')
    if metric == "euclidean":
        return None
    centered = any(g.get("centered") for g in optimizer.param_groups)
    for kind, rule in RULES:
        if isinstance(optimizer, kind) and not centered:
            return rule
    defaults = optimizer.defaults
    if not any(name in defaults for name in ADAPTS):
        return None
    if {"betas", "eps"} <= defaults.keys() and type(optimizer).__module__.partition(".")[0] != "torch":
        return _adam_of_others
    name = type(optimizer).__name__ + (" (centered)" if centered else "")
    raise bad(
        ValueError, "metric", f"the metric in which {name} measures its steps is not known",
        'Pass metric="euclidean" (which does not minimise loss + penalty if the optimizer adapts its steps), '
        'or use mode="grad"',
    )  # fmt: skip


def _adam_of_others(group: Group, state: State) -> Metric:
    if STATE not in state or "step" not in state:
        raise bad(
            ValueError, "metric", f"an optimizer with betas whose state has no {STATE!r} and 'step'",
            'Pass metric="euclidean" to attach, or use mode="grad"',
        )  # fmt: skip
    return _adam(group, state)
