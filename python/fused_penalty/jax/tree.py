"""A pytree -> its leaves, their paths, which of them are parameters, and how another tree pairs with it.

flax keeps arrays in boxes: an `nnx.Variable`, whose type says what the array is for, or one of linen's, which says how
it is to be sharded. A box is not a step of a path. Of nnx's Variables only Params are parameters, as in a torch Module
buffers are not; a Param that several modules share is one parameter. flax itself is never imported here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import jax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from .._core.containers import walk
from .._core.errors import bad
from .._core.rules import About
from .types import PyTree

Path = tuple[Any, ...]
# What linen's `init` may return beside "params" (its own names for mutable collections).
COLLECTIONS = ("batch_stats", "cache", "intermediates", "perturbations", "params_axes", "_overwrite_with_gradient")


def flatten(argument: str, tree: PyTree) -> tuple[list[Any], Any]:
    """`jax.tree.flatten`, which ends in a SystemError where containers are too deep or hold themselves."""
    try:
        return jax.tree.flatten(tree)
    except (RecursionError, SystemError):
        for _ in walk(argument, tree):
            pass
        raise


class Flat:
    """A flattened pytree. `same`: positions of shared parameters, each with the position where it came first."""

    def __init__(self, tree: PyTree, argument: str = "params") -> None:
        self.tree = tree
        self.leaves: list[Any]
        self.treedef: Any
        self.leaves, self.treedef = flatten(argument, tree)
        self.counted, self.same = _roles(tree, len(self.leaves))

    @functools.cached_property
    def keys(self) -> list[Path]:
        return [path for path, _ in _walk(self.tree, *_boxes())]

    @functools.cached_property
    def paths(self) -> tuple[str, ...]:
        """`decoder.0.kernel`, and so on."""
        return tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path in self.keys)

    @functools.cached_property
    def names(self) -> list[tuple[Hashable, ...]]:
        return [tuple(map(_name, path)) for path in self.keys]

    @functools.cached_property
    def about(self) -> About:
        return About(lambda: self.paths, self.leaves, lambda: [_owners(self.tree, path) for path in self.keys])

    def spread(self, prefix: PyTree) -> list[Any] | None:
        """The entry of a prefix tree for each leaf: by structure, or by name where containers differ in type only (a
        FrozenDict and a dict, an nnx Module and its State). None if it does not pair. A leaf that is not a
        parameter may have no entry; its entry is then None."""
        try:
            return jax.tree.leaves(jax.tree.broadcast(prefix, self.tree))
        except ValueError:
            entries = {tuple(map(_name, path)): value for path, value in _walk(prefix, *_boxes())}
        used, found = set(), []
        for name, counts in zip(self.names, self.counted, strict=True):
            at = next((name[:n] for n in range(len(name) + 1) if name[:n] in entries), None)
            if at is None and counts:
                return None
            used.add(at)
            found.append(None if at is None else entries[at])
        return found if entries.keys() <= used else None

    def twins(self, other: Flat) -> dict[int, Any] | None:
        """The leaf of another tree for each position, paired as in `spread`. None if the other has a parameter that
        this one lacks; positions that the other lacks are left out."""
        if other.treedef == self.treedef:
            return dict(enumerate(other.leaves))
        theirs = dict(zip(other.names, other.leaves, strict=True))
        needed = {name for name, counts in zip(other.names, other.counted, strict=True) if counts}
        if needed - set(self.names):
            return None
        return {i: theirs[name] for i, name in enumerate(self.names) if name in theirs}


def refuse_collections(params: PyTree) -> None:
    """Raise ValueError for all the variables of a linen Module, of which only some are parameters."""
    if not isinstance(params, Mapping) or not isinstance(params.get("params"), Mapping):
        return
    beside = [name for name in COLLECTIONS if name in params]
    if beside:
        raise bad(
            ValueError, "params", f"these are the variables of a flax Module, with {', '.join(beside)} beside params",
            'Give variables["params"], or say with mask= which leaves count',
        )  # fmt: skip


def _boxes() -> tuple[type, ...]:
    """The types of boxes, from those modules of flax that are loaded."""
    found = (
        getattr(sys.modules.get("flax.nnx"), "Variable", None),
        getattr(sys.modules.get("flax.core.meta"), "AxisMetadata", None),
    )
    return tuple(kind for kind in found if kind is not None)


def _is(x: object, kinds: tuple[type, ...]) -> bool:
    return bool(kinds) and _subclass(type(x), kinds)  # type: ignore[arg-type]


@functools.cache
def _subclass(kind: type, kinds: tuple[type, ...]) -> bool:
    """`issubclass`, cached: the metaclasses of flax are slow, and every node of a tree is tested."""
    return issubclass(kind, kinds)


def _roles(tree: PyTree, n: int) -> tuple[list[bool], dict[int, int]]:
    """(which leaves are parameters that come for the first time, where repeated ones came first)."""
    nnx = sys.modules.get("flax.nnx")
    variable, param = getattr(nnx, "Variable", None), getattr(nnx, "Param", None)
    if variable is None or param is None:
        return [True] * n, {}
    tops = jax.tree.leaves(tree, is_leaf=lambda x: _is(x, (variable,)))
    counted: list[bool] = []
    same: dict[int, int] = {}
    first: dict[int, int] = {}
    for x in tops:
        if not _is(x, (variable,)):
            counted.append(True)
            continue
        size = len(jax.tree.leaves(x))
        start = first.setdefault(id(x), len(counted))
        again = start < len(counted)
        same.update({len(counted) + k: start + k for k in range(size if again else 0)})
        counted += [_is(x, (param,)) and not again] * size
    return counted, same


def _walk(tree: PyTree, *boxes: type) -> Iterator[tuple[Path, Any]]:
    """(path, leaf) of each leaf, without the steps into boxes."""
    inside = _is(tree, boxes)
    flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree and _is(x, boxes))[0]
    for path, x in flat:
        own = path[1:] if inside and path[:1] == (GetAttrKey("value"),) else path
        if x is not tree and _is(x, boxes):
            yield from (((*own, *rest), leaf) for rest, leaf in _walk(x, *boxes))
        else:
            yield own, x


def _owners(tree: PyTree, path: Path) -> tuple[type, ...]:
    """The types of what is around the leaf at this path, outermost first."""
    found = []
    for key in path:
        found.append(type(tree))
        name = _name(key)
        tree = getattr(tree, str(name), None) if isinstance(key, GetAttrKey) else _item(tree, name)
    return tuple(found)


def _item(container: Any, key: Any) -> Any:
    try:
        return container[key]
    except (TypeError, LookupError):  # a node of a type whose keys lead nowhere
        return None


def _name(key: Any) -> Hashable:
    """The name of a step of a path, whatever the type of the container."""
    if isinstance(key, (DictKey, FlattenedIndexKey)):
        return key.key
    if isinstance(key, SequenceKey):
        return key.idx
    return key.name if isinstance(key, GetAttrKey) else key
