"""vmap over the custom ops: each row of a mapped leaf becomes a leaf of its own, still in one launch. Each of k leaves
has n rows, stored together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._core.errors import bad

Dims = Sequence[int | None]


def rows(tensors: Sequence[Tensor], dims: Dims, n: int) -> list[Tensor]:
    """The rows of each tensor; a tensor that is not mapped is repeated n times."""
    return [row for t, d in zip(tensors, dims, strict=True) for row in ([t] * n if d is None else t.unbind(d))]


def repeated(values: Sequence[int], _: Any, n: int) -> list[int]:
    return [v for v in values for _ in range(n)]


def positions(live: Sequence[int], _: Any, n: int) -> list[int]:
    """Where the rows of the leaves in `live` stand."""
    return [i * n + row for i in live for row in range(n)]


def coefficient_rows(coefficients: Tensor, dim: int | None, n: int) -> Tensor:
    """(k, 2), mapped over `dim` or not, as (k·n, 2)."""
    each = coefficients.unsqueeze(1).expand(-1, n, -1) if dim is None else coefficients.movedim(dim, 1)
    return each.reshape(-1, 2)


def same(value: Any, _: Any, n: int) -> Any:
    return value


# How an operand of a custom op is batched, by its name; others are the same for all rows.
OPERANDS: dict[str, Any] = {
    **dict.fromkeys(("xs", "anchors", "grads", "written", "read"), rows),
    "coefficients": coefficient_rows,
    "terms": repeated,
    "live": positions,
}


def results(found: Any, n: int) -> tuple[Any, Any]:
    """The results of the mapped call, and their mapped dimensions, from those of the launch on all rows: the totals
    (k·n, columns) as (k, n, columns), and beside them, where there are any, arrays for the rows of each leaf."""
    if isinstance(found, Tensor):
        return found.reshape(-1, n, found.shape[-1]), 1
    totals, arrays = found
    stacked = [torch.stack(list(arrays[i : i + n])) for i in range(0, len(arrays), n)]
    return (totals.reshape(-1, n, totals.shape[-1]), stacked), (1, [0] * len(stacked))


def check_mapped(argument: str, dims: Dims) -> None:
    """Raise unless each result has a row of its own to be written to."""
    if any(d is None for d in dims):
        raise bad(
            ValueError, argument, "under vmap a tensor that is not mapped would be written once for each row",
            "Map over it, too (in_dims), or call the verb outside vmap",
        )  # fmt: skip


def check_rows(info: Any) -> int:
    if not info.batch_size:
        raise bad(ValueError, "params", "vmap over no rows", "Map over one row or more")
    return int(info.batch_size)
