"""Pair strengths, masks and anchors with the leaves.

By name where both sides have names, by position only where both are lists; anything else is refused. A name that is not
found is looked for without the steps that wrappers add (`module.`, `_orig_mod.`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from .._core.containers import unique, walk
from .._core.errors import bad, bad_anchor
from .._core.paths import unwrapped
from .leaves import Leaves, flatten_with_ties
from .survey import check_leaves
from .types import Anchor

SHOWN = 3  # names in a message


def prefix_tree(argument: str, tree: Any, leaves: Leaves) -> list[Any] | None:
    """One entry for each name. Keys are dotted names or the leading parts of them; lists count positions."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return None
    names = leaves.names()
    entries = unique(argument, walk(argument, tree))
    unused = set(entries)
    found = []
    for name in names:
        key = next((head for n in (name, unwrapped(name)) for head in _heads(n) if head in entries), None)
        if key is None:
            raise bad(
                ValueError, argument, "its tree has no entry for this leaf",
                "Give a scalar, an entry for this name or for a leading part of it, or by_path", path=name,
            )  # fmt: skip
        unused.discard(key)
        found.append(entries[key])
    if unused:
        raise bad(
            ValueError, argument, f"its entries {sorted(unused)} name no leaf",
            f"Remove or correct them; names look like {list(names)[:5]}",
        )  # fmt: skip
    return found


def _heads(name: str) -> Iterator[str]:
    """The name and its leading parts, longest first."""
    parts = name.split(".")
    return (".".join(parts[:k]) for k in range(len(parts), 0, -1))


def anchors_of(anchor: Anchor | None, flat: Leaves, index: Sequence[int], leaves: list[Tensor]) -> list[Tensor]:
    """The anchors of the leaves at `index`, checked; an empty list without an anchor."""
    if anchor is None:
        return []
    chosen = _paired(flat, index, flatten_with_ties(anchor, "anchor"))
    names = flat.names()
    check_leaves(chosen, [names[i] for i in index], "anchor")
    for i, a, x in zip(index, chosen, leaves, strict=True):
        if a.shape != x.shape or a.dtype != x.dtype or a.device != x.device:
            raise bad_anchor(
                names[i],
                f"{a.dtype}{list(a.shape)} on {a.device} beside a leaf of {x.dtype}{list(x.shape)} on {x.device}",
            )
    return chosen


def _paired(flat: Leaves, index: Sequence[int], anchor: Leaves) -> list[Any]:
    if flat.keys is not None and anchor.keys is not None:
        return _by_name(flat, flat.keys, index, dict(zip(anchor.keys, anchor.tensors, strict=True)))
    if len(flat.tensors) == len(anchor.tensors) == 1:
        return [anchor.tensors[i] for i in index]
    if flat.keys is None and anchor.keys is None:
        if len(flat.tensors) != len(anchor.tensors):
            there, here = len(anchor.tensors), len(flat.tensors)
            raise bad(
                ValueError, "anchor", f"{there} tensor{'s' * (there != 1)} beside {here} leaves",
                "Lists pair by position: give one tensor for each leaf, or names on both sides",
            )  # fmt: skip
        return [anchor.tensors[i] for i in index]
    own = {id(t) for t in anchor.tensors}
    if all(id(flat.tensors[i]) in own for i in index):  # an anchor that holds the leaves themselves
        return [flat.tensors[i] for i in index]
    if flat.keys is None:
        raise bad(
            ValueError, "anchor", "it has names and params have none, so they cannot be paired reliably",
            "Give params their names too: the Module, named_parameters() (to the optimizer, for attach) or a mapping",
        )  # fmt: skip
    raise bad(
        ValueError, "anchor", "params have names and it has none, so they cannot be paired reliably",
        "Give the anchor names too: a Module, a state_dict or {n: p.detach().clone() for n, p in m.named_parameters()}",
    )  # fmt: skip


def _by_name(flat: Leaves, keys: list[str], index: Sequence[int], entries: dict[str, Any]) -> list[Any]:
    """The entry of each leaf. Other entries (such as buffers in a state_dict) are ignored."""
    missing = [keys[i] for i in index if keys[i] not in entries]
    if not missing:
        return [entries[keys[i]] for i in index]
    aliases = flat.aliases()  # a tied leaf may have its entry under another of its names
    bare = {unwrapped(entry): entry for entry in entries}
    known = {
        name: next((a for a in aliases.get(name, ()) if a in entries), bare.get(unwrapped(name))) for name in missing
    }
    if lost := [repr(name) for name in missing if known[name] is None]:
        shown = ", ".join(lost[:SHOWN]) + ", ..." * (len(lost) > SHOWN)
        alike = ", ".join(repr(name) for name in list(entries)[:SHOWN])
        raise bad(
            ValueError, "anchor",
            f"it has no entry for {len(lost)} of {len(index)} leaves: {shown}; its names look like {alike or 'none'}",
            "Give a Module, mapping or (name, tensor) pairs with the names of params, or leave leaves out with mask=",
        )  # fmt: skip
    return [entries[known.get(keys[i]) or keys[i]] for i in index]
