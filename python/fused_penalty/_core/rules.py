"""Rules: strengths, or masks, that are found leaf by leaf, instead of a scalar or a tree of scalars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

from .errors import bad, describe
from .paths import Pattern, first_matches, is_pattern

Value: TypeAlias = Any
"""What a rule has for a leaf: a finite float >= 0 or a 0-d array of the framework; in a mask, a bool."""


@dataclass(frozen=True)
class About:
    """What a rule can learn of the leaves of params. The two functions are called by rules that need the answer.

    `owners`: the types of the modules and containers around each leaf, outermost first; None where params came without
    them, as the parameters of an optimizer do. `named`: whether the paths are more than positions in a list.
    """

    paths: Callable[[], Sequence[str]]
    leaves: Sequence[Any]
    owners: Callable[[], Sequence[tuple[type, ...]] | None]
    named: bool = True


class Rule:
    """A strength or a mask for each leaf. `needs` is what it has to know of them: "names", "modules" or nothing; `name`
    is the function that makes it."""

    name: ClassVar[str]
    needs: ClassVar[str | None] = None

    def resolve(self, argument: str, about: About, selected: Sequence[bool]) -> list[Any]:
        """A value for each leaf; None for one that is not selected, if there is none."""
        raise NotImplementedError

    def mapped(self, f: Callable[[Any], Any]) -> Rule:
        """The rule with f applied to its values."""
        return self


@dataclass(frozen=True, repr=False)
class ByPath(Rule):
    """Values by pattern over the dotted path of a leaf; made by `by_path`."""

    patterns: tuple[tuple[Pattern, Value], ...]
    default: Value = None

    name, needs = "by_path", "names"

    def resolve(self, argument: str, about: About, selected: Sequence[bool]) -> list[Any]:
        paths = about.paths()
        first = first_matches(tuple(pattern for pattern, _ in self.patterns), tuple(paths))
        found = []
        for path, keep, i in zip(paths, selected, first, strict=True):
            value = self.default if i is None else self.patterns[i][1]
            if i is None and keep and value is None:
                raise bad(
                    ValueError, argument, "no pattern of by_path matches this leaf",
                    'Add a pattern for it, a last pattern "*", or default=', path=path,
                )  # fmt: skip
            found.append(value)
        if unused := set(range(len(self.patterns))) - set(first):
            names = ", ".join(_shown(self.patterns[i][0]) for i in sorted(unused))
            known = ", ".join(repr(p) for p in list(paths)[:5])
            raise bad(
                ValueError, argument, f"by_path pattern {names} is the first match of no leaf",
                f"Remove it, correct it, or move it before a wider pattern; paths look like {known}",
            )  # fmt: skip
        return found

    def mapped(self, f: Callable[[Any], Any]) -> ByPath:
        default = None if self.default is None else f(self.default)
        return replace(self, patterns=tuple((p, f(v)) for p, v in self.patterns), default=default)

    def __repr__(self) -> str:
        default = "" if self.default is None else f", default={self.default!r}"
        return f"by_path({dict(self.patterns)!r}{default})"


def _shown(pattern: Pattern) -> str:
    return repr(pattern if isinstance(pattern, str) else pattern.pattern)


@dataclass(frozen=True)
class ByLeaf(Rule):
    """Values by a function of path and leaf; made by `by_leaf`."""

    function: Callable[[str, Any], Any]

    name = "by_leaf"

    def resolve(self, argument: str, about: About, selected: Sequence[bool]) -> list[Any]:
        items = zip(about.paths(), about.leaves, selected, strict=True)
        return [self.function(path, leaf) if keep else None for path, leaf, keep in items]


def by_path(patterns: Mapping[Pattern, Value], *, default: Value = None) -> ByPath:
    """Set strengths by path: the first pattern that matches a leaf's dotted path gives its strength.

    A path matches with and without the steps that wrappers add to it: `module.` of DistributedDataParallel and
    AveragedModel, `_orig_mod.` of torch.compile. In flax, boxes such as nnx's Variables are no steps (no `.value`).

    Args:
      patterns: A mapping from pattern to strength, in order of precedence. A pattern is a glob over the whole path
        (`fnmatch`, case-sensitive) or a regular expression (`re.compile`), which is searched for in it. A strength is
        what `l1` and `l2` take for one leaf: a finite float >= 0 or a 0-d array, possibly traced; or a bool, where the
        rule is given as a mask.
      default: For the leaves that no pattern matches. None: such a leaf is an error.

    Returns:
      A rule to give as `l1`, `l2` or `mask`.

    Raises:
      TypeError: patterns is not such a mapping.
      ValueError: (from the call that is given the rule) no pattern matches a selected leaf and there is no default, or
        a pattern is never the first match.

    Example:
      >>> import re
      >>> import fused_penalty as fp
      >>> fp.by_path({"*bias": 0.0, "*": 1e-4})
      by_path({'*bias': 0.0, '*': 0.0001})
      >>> fp.by_path({re.compile(r"bias|norm"): 0.0}, default=1e-4).default
      0.0001
    """
    if not isinstance(patterns, Mapping) or not all(map(is_pattern, patterns)):
        raise bad(
            TypeError, "patterns", f"{describe(patterns)} is not a mapping from pattern to strength",
            'Write by_path({"*bias": 0.0, "*": 1e-4}); a pattern is a str or what re.compile returns of one',
        )  # fmt: skip
    return ByPath(tuple(patterns.items()), default)


def by_leaf(function: Callable[[str, Any], Any]) -> ByLeaf:
    """Set strengths by a function of the dotted path and the leaf, called once for every selected leaf.

    Args:
      function: Called as function(path, leaf); returns what `l1` and `l2` take for one leaf: a finite float >= 0 or a
        0-d array, possibly traced; or a bool, where the rule is given as a mask. Leaves are as they are in params, and
        may be traced.

    Returns:
      A rule to give as `l1`, `l2` or `mask`.

    Raises:
      TypeError: function is not callable.

    Example:
      >>> import fused_penalty as fp
      >>> import numpy as np
      >>> rule = fp.by_leaf(lambda path, leaf: 1e-4 if leaf.ndim > 1 else 0.0)
      >>> rule.function("bias", np.zeros(3))
      0.0
    """
    if not callable(function):
        raise bad(
            TypeError, "function", f"{describe(function)} is not callable",
            "Write by_leaf(lambda path, leaf: ...)",
        )  # fmt: skip
    return ByLeaf(function)
