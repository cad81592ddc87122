"""Rules as plain data, which can be saved as JSON, and back."""

from __future__ import annotations

import re
from typing import Any

from .module_rules import NoDecay, no_decay_on_norms_and_biases
from .paths import Pattern
from .rules import ByPath, by_path

KEY = "rule"


def to_config(value: Any) -> Any:
    """A rule that consists of patterns and numbers as a dict; anything else, such as a function's rule, as it is."""
    if isinstance(value, ByPath):
        patterns = [[_plain(pattern), strength] for pattern, strength in value.patterns]
        return {KEY: value.name, "patterns": patterns, "default": value.default}
    if isinstance(value, NoDecay):
        return {KEY: value.name, "strength": value.strength, "also": [_plain(pattern) for pattern in value.also]}
    return value


def from_config(value: Any) -> Any:
    """What `to_config` was given.

    >>> rule = by_path({"*.kernel": 0.5, re.compile("bias", re.IGNORECASE): 0.0}, default=1.0)
    >>> from_config(to_config(rule)) == rule
    True
    """
    if not isinstance(value, dict) or KEY not in value:
        return value
    if value[KEY] == ByPath.name:
        patterns = {_pattern(pattern): strength for pattern, strength in value["patterns"]}
        return by_path(patterns, default=value["default"])
    return no_decay_on_norms_and_biases(value["strength"], also=[_pattern(pattern) for pattern in value["also"]])


def _plain(pattern: Pattern) -> Any:
    return pattern if isinstance(pattern, str) else {"regex": pattern.pattern, "flags": int(pattern.flags)}


def _pattern(plain: Any) -> Pattern:
    return plain if isinstance(plain, str) else re.compile(plain["regex"], plain["flags"])
