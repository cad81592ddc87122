"""What pairs with the leaves: trees of strengths and masks, and anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .._core.errors import bad, bad_anchor
from .leaves import Leaves, _walk, flatten
from .survey import check_leaves


def prefix_tree(argument: str, tree: Any, leaves: Leaves) -> list[Any] | None:
    """One entry for each name. Keys are dotted names or the leading parts of them; lists count positions."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return None
    names = leaves.names()
    entries = dict(_walk("", tree))
    unused = set(entries)
    found = []
    for name in names:
        parts = name.split(".")
        heads = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
        key = next((head for head in heads if head in entries), None)
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


def anchors_of(anchor: Any, found: Leaves, index: Sequence[int], leaves: list[Tensor]) -> list[Tensor]:
    if anchor is None:
        return []
    other = flatten(anchor, "anchor")
    if len(other.tensors) != len(found.tensors) or (
        found.keys is not None and other.keys is not None and other.keys != found.keys
    ):
        raise bad_anchor("", f"{len(other.tensors)} tensors that do not pair with {len(found.tensors)} leaves")
    chosen = [other.tensors[i] for i in index]
    check_leaves(chosen, other, index)
    for i, a, x in zip(index, chosen, leaves, strict=True):
        if a.shape != x.shape or a.dtype != x.dtype or a.device != x.device:
            raise bad_anchor(
                found.names()[i],
                f"{a.dtype}{list(a.shape)} on {a.device} beside a leaf of {x.dtype}{list(x.shape)} on {x.device}",
            )
    return chosen
