"""Strengths given as a rule over paths or leaves, instead of a scalar or a tree of scalars."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import bad, describe


@dataclass(frozen=True)
class ByPath:
    """Strengths by glob over the dotted path of a leaf; made by `by_path`."""

    patterns: tuple[tuple[str, Any], ...]

    def resolve(
        self, argument: str, paths: Sequence[str], leaves: Sequence[Any], selected: Sequence[bool]
    ) -> list[Any]:
        found: list[Any] = []
        unused = {glob for glob, _ in self.patterns}
        first = first_matches(tuple(glob for glob, _ in self.patterns), tuple(paths))
        for path, keep, i in zip(paths, selected, first, strict=True):
            match = None if i is None else self.patterns[i]
            if match is not None:
                unused.discard(match[0])
            elif keep:
                raise bad(
                    ValueError,
                    argument,
                    "no pattern of by_path matches this leaf",
                    'Add a pattern for it, or a last pattern "*"',
                    path=path,
                )
            found.append(None if match is None else match[1])
        if unused:
            names = ", ".join(repr(g) for g, _ in self.patterns if g in unused)
            known = ", ".join(repr(p) for p in list(paths)[:5])
            raise bad(
                ValueError,
                argument,
                f"by_path pattern {names} is the first match of no leaf",
                f"Remove it, correct it, or move it before a wider pattern; paths look like {known}",
            )
        return found


def first_matches(globs: tuple[str, ...], paths: tuple[str, ...]) -> tuple[int | None, ...]:
    """For each path the position of the first glob that matches it."""
    return tuple(next((i for i, g in enumerate(globs) if fnmatch.fnmatchcase(p, g)), None) for p in paths)


@dataclass(frozen=True)
class ByLeaf:
    """Strengths by a function of path and leaf; made by `by_leaf`."""

    function: Callable[[str, Any], Any]

    def resolve(
        self, argument: str, paths: Sequence[str], leaves: Sequence[Any], selected: Sequence[bool]
    ) -> list[Any]:
        items = zip(paths, leaves, selected, strict=True)
        return [self.function(path, leaf) if keep else None for path, leaf, keep in items]


def by_path(patterns: Mapping[str, Any]) -> ByPath:
    """Set strengths by glob: the first pattern that matches a leaf's dotted path gives its strength.

    Args:
      patterns: A mapping from glob (`fnmatch`, case-sensitive) to strength, in order of precedence. A strength is what
        `l1` and `l2` take for one leaf: a finite float >= 0 or a 0-d array, possibly traced.

    Returns:
      A rule to give as `l1` or `l2`.

    Raises:
      TypeError: patterns is not such a mapping.
      ValueError: (from the call that is given the rule) no pattern matches a selected leaf, or a pattern is never the
        first match.

    Example:
      >>> import fused_penalty as fp
      >>> fp.by_path({"*bias": 0.0, "*": 1e-4})
      ByPath(patterns=(('*bias', 0.0), ('*', 0.0001)))
    """
    if not isinstance(patterns, Mapping) or not all(isinstance(g, str) for g in patterns):
        raise bad(
            TypeError, "patterns", f"{describe(patterns)} is not a mapping from glob to strength",
            'Write by_path({"*bias": 0.0, "*": 1e-4})',
        )  # fmt: skip
    return ByPath(tuple(patterns.items()))


def by_leaf(function: Callable[[str, Any], Any]) -> ByLeaf:
    """Set strengths by a function of the dotted path and the leaf, called once for every selected leaf.

    Args:
      function: Called as function(path, leaf); returns what `l1` and `l2` take for one leaf: a finite float >= 0 or a
        0-d array, possibly traced. Leaves are as they are in params, and may be traced.

    Returns:
      A rule to give as `l1` or `l2`.

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
