"""What a call of the Triton backend costs the host before the launch, whole: select, read the tensors, look the tables
up or build and upload them, allocate, put the arguments together. The launch itself needs a GPU and is left out, and so
is Triton's own share of it, which does not depend on the number of tensors. Tables stay on the CPU: a copy in memory
stands for the copy to the device, which is asynchronous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.models.cases import Tree


def _sums(xs: list[Any], size: int) -> Callable[[], object]:
    """`sums` of a backend that prepares and does not launch, with `size` tables kept."""
    from fused_penalty._core import backends as _backends
    from fused_penalty.torch import sums
    from fused_penalty.torch.backends.native import Launcher
    from fused_penalty.torch.backends.tables import Place, Tables
    from fused_penalty.torch.backends.triton import prepare

    tables = Tables(size)
    launcher = Launcher(
        lambda op, buffers, strengths, terms: (
            prepare(op, buffers, strengths, terms, Place.current(buffers.device), tables).totals
        )
    )
    row = _backends.Backend(f"triton host {id(tables)}", "torch", ("cpu",), lambda: launcher)
    _backends.BACKENDS = (*_backends.BACKENDS, row)
    return lambda: sums(xs, backend=row.name)


def same_tensors(tree: Tree) -> Callable[[], object]:
    return _sums(tree.torch, 2)


def new_addresses(tree: Tree) -> Callable[[], object]:
    """Two lists by turns, of which one table is kept beside that of the sizes."""
    xs = list(tree.torch)
    call, other = _sums(xs, 2), [x.clone() for x in xs]

    def by_turns() -> object:
        xs[:], other[:] = other[:], xs[:]
        return call()

    return by_turns


def new_sizes(tree: Tree) -> Callable[[], object]:
    """Nothing is known: the plan is made, and both tables."""
    from fused_penalty._core.plan import plan_of_layout

    call = _sums(tree.torch, 0)

    def fresh() -> object:
        plan_of_layout.cache_clear()
        return call()

    return fresh
