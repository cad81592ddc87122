"""Dotted paths of leaves, and the patterns that match them."""

from __future__ import annotations

import fnmatch
import re
from typing import Any, TypeAlias

Pattern: TypeAlias = str | re.Pattern[str]
"""A glob over a whole path, or a regular expression that is searched for in it."""

# Steps that a wrapper adds to every path: DataParallel, DistributedDataParallel and AveragedModel at its beginning,
# torch.compile wherever a module has been compiled.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)(?:\.|$))+|(?<=\.)_orig_mod(?:\.|$)")


def unwrapped(path: str) -> str:
    """The path without the steps that wrappers add.

    >>> unwrapped("module._orig_mod.layers.0._orig_mod.weight")
    'layers.0.weight'
    """
    return _WRAPPERS.sub("", path)


def is_pattern(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, re.Pattern) and isinstance(value.pattern, str))


def first_matches(patterns: tuple[Pattern, ...], paths: tuple[str, ...]) -> tuple[int | None, ...]:
    """For each path the position of the first pattern that matches it, with the steps of wrappers or without."""
    return tuple(
        next((i for i, pattern in enumerate(patterns) if _matches(pattern, path)), None) for path in paths
    )  # fmt: skip


def _matches(pattern: Pattern, path: str) -> bool:
    bare = unwrapped(path)
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase(path, pattern) or (bare != path and fnmatch.fnmatchcase(bare, pattern))
    return pattern.search(path) is not None or (bare != path and pattern.search(bare) is not None)
