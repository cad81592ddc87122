"""vmap over the custom ops that have no derivative: each row of a mapped leaf becomes a leaf of its own, still in one
launch. Leaf i of k has n rows, which stand together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._core.errors import bad

Dims = Sequence[int | None]


def rows(tensors: Sequence[Tensor], dims: Dims, n: int) -> list[Tensor]:
    """The rows of each tensor; of one that is not mapped, itself n times."""
    return [row for t, d in zip(tensors, dims, strict=True) for row in ([t] * n if d is None else t.unbind(d))]


def repeated(values: Sequence[int], n: int) -> list[int]:
    return [v for v in values for _ in range(n)]


def positions(live: Sequence[int], n: int) -> list[int]:
    """Where the rows of the leaves in `live` stand."""
    return [i * n + row for i in live for row in range(n)]


def strength_rows(strengths: Tensor, dim: int | None, n: int) -> Tensor:
    """(k, 2), mapped over `dim` or not, as (k·n, 2)."""
    each = strengths.unsqueeze(1).expand(-1, n, -1) if dim is None else strengths.movedim(dim, 1)
    return each.reshape(-1, 2)


def per_leaf_rows(total: Tensor, n: int) -> tuple[Tensor, int]:
    """The (k·n, columns) of a launch as (k, n, columns), and the dimension that is mapped."""
    return total.reshape(-1, n, total.shape[-1]), 1


def stacked(tensors: Sequence[Tensor], n: int) -> tuple[list[Tensor], list[int]]:
    """Tensors of the mapped leaves from those of their rows, and the dimensions that are mapped."""
    found = [torch.stack(list(tensors[i : i + n])) for i in range(0, len(tensors), n)]
    return found, [0] * len(found)


def check_mapped(argument: str, dims: Dims) -> None:
    """What is written must have a row of its own for each result."""
    if any(d is None for d in dims):
        raise bad(
            ValueError, argument, "under vmap a tensor that is not mapped would be written once for each row",
            "Map over it, too (in_dims), or call the verb outside vmap",
        )  # fmt: skip


def check_rows(info: Any) -> int:
    if not info.batch_size:
        raise bad(ValueError, "params", "vmap over no rows", "Map over one row or more")
    return info.batch_size
