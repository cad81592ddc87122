"""Rules that look at the modules around a leaf: `by_type`, `no_decay_on_norms_and_biases`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import bad, describe
from .paths import Pattern, first_matches, is_pattern, unwrapped
from .rules import About, Rule, Value

# A module's class, or the step of a path that names it: LayerNorm, LlamaRMSNorm, BatchNormAct2d, layer_norm, norm1,
# LayerNorm_0, ln_1, bn2; but not weight_norm and SpectralNorm, which wrap a weight.
_NORM = re.compile(
    r"(?<!weight)(?<!weight_)(?<!spectral)(?<!spectral_)norm(?:alization)?(?:act)?(?:_?\d+d?)?(?:fp32)?$"
    r"|(?:^|_)(?:ln|bn)(?:_?\d+)?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ByType(Rule):
    """Values by the type of a module around the leaf; made by `by_type`."""

    types: tuple[tuple[type, Value], ...]
    default: Value = None

    name, needs = "by_type", "modules"

    def resolve(self, argument: str, about: About, selected: Sequence[bool]) -> list[Any]:
        owners = about.owners()
        if owners is None:
            raise bad(
                ValueError, argument, "by_type needs the modules of the leaves, and params came without them",
                "Give the Module itself as params; for an optimizer, the argument model=",
            )  # fmt: skip
        found: list[Value] = []
        for around, keep, i in zip(owners, selected, innermost(tuple(t for t, _ in self.types), owners), strict=True):
            value = self.default if i is None else self.types[i][1]
            if i is None and keep and value is None:
                modules = " > ".join(t.__name__ for t in around) or "no module"
                raise bad(
                    ValueError, argument, f"this leaf is in {modules}, of which by_type knows none",
                    "Add one of these types, or default=", path=about.paths()[len(found)],
                )  # fmt: skip
            found.append(value)
        return found

    def mapped(self, f: Callable[[Any], Any]) -> ByType:
        default = None if self.default is None else f(self.default)
        return replace(self, types=tuple((t, f(v)) for t, v in self.types), default=default)


def innermost(types: tuple[type, ...], owners: Sequence[tuple[type, ...]]) -> tuple[int | None, ...]:
    """For each leaf the position of the type that the innermost of its owners is of; of several, the first."""

    def of(around: tuple[type, ...]) -> int | None:
        for owner in reversed(around):
            for i, kind in enumerate(types):
                if issubclass(owner, kind):
                    return i
        return None

    return tuple(map(of, owners))


@dataclass(frozen=True)
class NoDecay(Rule):
    """One value for weights, and 0 (as a mask, False) for norms and biases; see `no_decay_on_norms_and_biases`."""

    strength: Value
    also: tuple[Pattern, ...]

    name, needs = "no_decay_on_norms_and_biases", "names"

    def resolve(self, argument: str, about: About, selected: Sequence[bool]) -> list[Any]:
        if not about.named:
            raise bad(
                ValueError, argument, "no_decay_on_norms_and_biases needs names, and params have none",
                "Give the Module itself or named_parameters(); for an optimizer, the argument model=",
            )  # fmt: skip
        if self.strength is True and argument != "mask":
            raise bad(
                TypeError, argument, "no_decay_on_norms_and_biases() without a strength is a mask",
                "Give it as mask=, or write no_decay_on_norms_and_biases(1e-4)",
            )  # fmt: skip
        paths = tuple(about.paths())
        owners = about.owners() or ((),) * len(paths)
        found = spared(paths, tuple(getattr(x, "ndim", 0) for x in about.leaves), tuple(owners), self.also)
        left_out = False if self.strength is True else 0.0
        return [left_out if spare else self.strength for spare in found]

    def mapped(self, f: Callable[[Any], Any]) -> NoDecay:
        return replace(self, strength=f(self.strength))


def spared(
    paths: tuple[str, ...], ndims: tuple[int, ...], owners: tuple[tuple[type, ...], ...], also: tuple[Pattern, ...]
) -> tuple[bool, ...]:
    """Which leaves are biases, parameters of a norm, of fewer than two dimensions, or among the patterns."""
    listed = first_matches(also, paths)
    return tuple(
        ndim < 2 or i is not None or _is_bias(path) or _is_of_norm(path, around)
        for path, ndim, around, i in zip(paths, ndims, owners, listed, strict=True)
    )


def _is_bias(path: str) -> bool:
    return "bias" in path.rpartition(".")[2].lower()


def _is_of_norm(path: str, around: tuple[type, ...]) -> bool:
    """By the class of the module that holds the leaf itself, or by its name where it is a mere container."""
    if around and not issubclass(around[-1], (Mapping, list, tuple)):
        return any(_NORM.search(kind.__name__) for kind in around[-1].__mro__)
    return _NORM.search(unwrapped(path).rpartition(".")[0].rpartition(".")[2]) is not None


def by_type(types: Mapping[type, Value], *, default: Value = None) -> ByType:
    """Set strengths by the type of module that a leaf is in: the innermost module of a type that is listed decides.

    Modules are those of torch, flax nnx and equinox; plain dicts of arrays, such as linen's params, tell no types.

    Args:
      types: A mapping from types of modules to strengths; a subclass counts as its base. Where one module is of several
        of these types, the first in the mapping decides. A strength is what `by_path` takes.
      default: For the leaves in no module of these types. None: such a leaf is an error.

    Returns:
      A rule to give as `l1`, `l2` or `mask`.

    Raises:
      TypeError: types is not such a mapping.
      ValueError: (from the call that is given the rule) a leaf is in no such module and there is no default, or params
        tell nothing of their modules: a list of parameters, or an optimizer that was not given `model=`.

    Source: `transformers.Trainer` leaves out parameters by the type of their modules in the same way.

    Example:
      >>> import torch
      >>> import fused_penalty as fp
      >>> from fused_penalty.torch import penalty
      >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.LayerNorm(2))
      >>> rule = fp.by_type({torch.nn.LayerNorm: 0.0}, default=1.0)
      >>> bool(penalty(model, l2=rule) == penalty(model[0], l2=1.0))
      True
    """
    if not isinstance(types, Mapping) or not all(isinstance(t, type) for t in types):
        raise bad(
            TypeError, "types", f"{describe(types)} is not a mapping from type to strength",
            "Write by_type({nn.LayerNorm: 0.0}, default=1e-4)",
        )  # fmt: skip
    return ByType(tuple(types.items()), default)


def no_decay_on_norms_and_biases(strength: Value = True, *, also: Iterable[Pattern] = ()) -> NoDecay:
    """Leave out what is usually not decayed: biases, the parameters of norms, and all of fewer than two dimensions.

    A leaf is left out if it has fewer than two dimensions, if the last step of its path contains "bias", or if the
    module that holds it is a norm. That is seen from the class of the module (LayerNorm, RMSNorm, BatchNorm, GroupNorm,
    InstanceNorm, their subclasses, and other classes with such a name), and where params are plain containers from the
    module's name in the path ("norm1", "layer_norm", "LayerNorm_0", "ln_1", "bn2").

    Args:
      strength: For all other leaves: what `by_path` takes. True makes the rule a mask.
      also: Patterns, as in `by_path`, of further leaves to leave out, such as timm's `model.no_weight_decay()`.

    Returns:
      A rule: `mask=no_decay_on_norms_and_biases()`, or `l2=no_decay_on_norms_and_biases(1e-4)`.

    Raises:
      TypeError: also is not an iterable of patterns.
      ValueError: (from the call that is given the rule) params have no names: a list of tensors, or an optimizer that
        knows none and was not given `model=`.

    Source: `transformers.Trainer.get_decay_parameter_names`, `timm.optim.param_groups_weight_decay`. Unlike the former,
      1-d leaves are left out whatever their names; unlike the latter, biases and norms of more dimensions, too.

    Example:
      >>> import jax.numpy as jnp
      >>> import fused_penalty as fp
      >>> from fused_penalty.jax import penalty
      >>> params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones((1, 2))}}
      >>> float(penalty(params, l1=0.5, mask=fp.no_decay_on_norms_and_biases()))
      2.0
    """
    patterns = None if isinstance(also, (str, bytes)) or not isinstance(also, Iterable) else tuple(also)
    if patterns is None or not all(map(is_pattern, patterns)):
        raise bad(
            TypeError, "also", f"{describe(also)} is not an iterable of patterns",
            'Write also=["*pos_embed"]; a pattern is a str or what re.compile returns of one',
        )  # fmt: skip
    return NoDecay(strength, patterns)
