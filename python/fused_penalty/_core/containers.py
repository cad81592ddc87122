"""Nested mappings, lists and tuples -> dotted paths and leaves. Knows no framework."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .errors import bad

DEPTH = 1000  # levels of containers; JAX and repr() give up at about as many


def walk(argument: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """(dotted path, leaf), in order; None is not a leaf. Paths may occur twice: `unique` refuses that.

    A loop, not a recursion, so that a container that is too deep or holds itself gives an error of ours.
    """
    levels: list[Iterator[tuple[str, Any]]] = [iter([("", tree)])]
    parents: list[Any] = []
    while levels:
        item = next(levels[-1], None)
        if item is None:
            levels.pop()
            if parents:
                parents.pop()
            continue
        path, value = item
        if not isinstance(value, (Mapping, list, tuple)):
            if value is not None:
                yield path, value
            continue
        if len(levels) > DEPTH:
            raise bad_nesting(argument, [*parents, value])
        parents.append(value)
        levels.append(_entries(path, value))


def _entries(prefix: str, container: Any) -> Iterator[tuple[str, Any]]:
    for key, item in container.items() if isinstance(container, Mapping) else enumerate(container):
        yield f"{prefix}.{key}" if prefix else str(key), item


def bad_nesting(argument: str, parents: list[Any]) -> Exception:
    """The error for containers that are nested too deeply."""
    cyclic = len({id(x) for x in parents}) < len(parents)
    what = "a container that holds itself" if cyclic else f"containers nested more than {DEPTH:,} deep"
    return bad(ValueError, argument, what, "Give a flat mapping from names, or take the cycle out")


def unique(argument: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The leaves by path. Two leaves with one path are an error, as a dict would keep only one."""
    listed = list(pairs)
    found = dict(listed)
    if len(found) < len(listed):
        twice = next(path for path, n in Counter(path for path, _ in listed).items() if n > 1)
        raise bad(
            ValueError, argument, f"two leaves have the path {twice!r}",
            "Rename one: a path is the keys joined by dots, so {'a.b': x} and {'a': {'b': y}} have the same",
        )  # fmt: skip
    return found
