"""Whose an optimizer's parameters are: their names, and the types of the modules around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .._core.errors import bad, describe
from .._core.rules import Rule
from .._core.strengths import WeightDecay
from .leaves import Known, types_around
from .types import Params

FROM_MODEL = "Build the optimizer from model.named_parameters(), or give model="


class Origins:
    """From the optimizer's model, if it was given, or else from the names in its parameter groups.

    What the model says is kept by position: a copy of the optimizer has other parameters in the same order, and does
    not take the model along.
    """

    def __init__(self, model: nn.Module | None) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise bad(
                TypeError, "model", f"{describe(model)} is not an nn.Module",
                "Give the model whose parameters the optimizer has",
            )  # fmt: skip
        self._model = model
        self._key: tuple[Any, ...] | None = None
        self._names: list[str] = []
        self._types: dict[str, tuple[type, ...]] = {}

    def params(self, optimizer: Optimizer) -> Params:
        """The parameters of all groups, with their names if they are known."""
        groups = optimizer.param_groups
        params = [p for g in groups for p in g["params"]]
        self._look(optimizer, params)
        if params and len(self._names) == len(params):
            known = Known(zip(self._names, params, strict=True))
            known.around = self._around
            return known
        names = [n for g in groups for n in g.get("param_names", ())]
        # torch accepts duplicate names (of two modules), which identify nothing
        named = len(names) == len(params) == len(set(names))
        return list(zip(names, params, strict=True)) if named else params

    def _look(self, optimizer: Optimizer, params: list[Any]) -> None:
        """Ask the model, if the groups have changed."""
        key = key_of(optimizer)
        if self._model is None or key == self._key:
            return
        known: dict[int, str] = {}
        for name, p in self._model.named_parameters(remove_duplicate=False):
            known.setdefault(id(p), name)
        for k, g in enumerate(optimizer.param_groups):
            for i, p in enumerate(g["params"]):
                if id(p) not in known:
                    raise bad(
                        ValueError, "model",
                        f"it does not have parameter {i} of group {k}, of shape {tuple(p.shape)}",
                        "Give the model from whose parameters the optimizer was built, as it was then",
                    )  # fmt: skip
        self._key, self._names = key, [known[id(p)] for p in params]
        self._types = {}

    def _around(self, name: str) -> tuple[type, ...]:
        """Kept only where a rule asks, since a class inside a function cannot be pickled."""
        if name not in self._types and self._model is not None:
            self._types[name] = types_around(self._model, name)
        return self._types[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_key": None}


def key_of(optimizer: Optimizer) -> tuple[Any, ...]:
    """Changes when a group is added or gets other parameters."""
    return tuple((id(g["params"]), len(g["params"])) for g in optimizer.param_groups)


def check_named(params: Any, strengths: Mapping[str, Any], mask: Any, anchor: Any) -> None:
    """Raise for what needs to know more of the parameters, as `Origins.params` returns them, than is known."""
    named = not params or isinstance(params[0], tuple)
    for argument, value in {**strengths, "mask": mask}.items():
        if isinstance(value, WeightDecay):
            argument, value = "weight_decay", value.value
        if isinstance(value, Rule) and value.needs is not None:
            _check_rule(argument, value, named, isinstance(params, Known))
    _check_anchor(anchor, named or len(params) == 1)


def _check_rule(argument: str, value: Rule, named: bool, known: bool) -> None:
    if not named:
        remedy = "Give model=" if value.needs == "modules" else FROM_MODEL
        raise bad(
            ValueError, argument,
            f"{value.name} needs the parameters' {value.needs}, which this optimizer does not know",
            f"{remedy}, by_leaf, or strengths in the parameter groups",
        )  # fmt: skip
    if value.needs == "modules" and not known:
        raise bad(
            ValueError, argument, f"{value.name} needs the parameters' modules, of which their names tell nothing",
            "Give model=, or use by_path",
        )  # fmt: skip


def _check_anchor(anchor: Any, named: bool) -> None:
    """Refuse an anchor with names for parameters without: their order would decide, and groups change it."""
    if named or not isinstance(anchor, (nn.Module, Mapping, list, tuple)):
        return
    if isinstance(anchor, (nn.Module, Mapping)) or any(isinstance(x, tuple) for x in anchor):
        raise bad(
            ValueError, "anchor", "it has names, but this optimizer does not know those of its parameters",
            f"{FROM_MODEL}, or a list of tensors in its parameters' order",
        )  # fmt: skip
