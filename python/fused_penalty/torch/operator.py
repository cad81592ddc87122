"""A function on tensors as a custom op, which torch.compile, export and traces see; eager calls bypass it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from . import batching
from .modes import is_plain


class Operator:
    """`fused_penalty::<name>`. Its schema is the signature of `run`, and the names of its operands say how they are
    batched (`batching.OPERANDS`). In plain eager mode a call runs `run` alone: the verbs prepare their operands.

    Args:
      run: does the work.
      check: raises for operands that `run` cannot take, since anybody can call the op.
      result: what stands for the result where nothing is computed (torch's "fake").
      mutates: the operands that are written.
      check_memory: as `check`, but asks for memory, which fake tensors do not have.
    """

    def __init__(
        self,
        name: str,
        run: Callable[..., Any],
        check: Callable[..., None],
        result: Callable[..., Any],
        mutates: Iterable[str] = (),
        check_memory: Callable[..., None] = lambda *_: None,
    ) -> None:
        self.run = run
        self._operands = tuple(inspect.signature(run).parameters)
        self._mutates = tuple(mutates)

        def checked(*operands: Any) -> Any:
            check(*operands)
            check_memory(*operands)
            return run(*operands)

        def fake(*operands: Any) -> Any:
            check(*operands)
            return result(*operands)

        schema = torch.library.infer_schema(run, mutates_args=self._mutates)
        self.op = torch.library.custom_op(f"fused_penalty::{name}", checked, mutates_args=self._mutates, schema=schema)
        self.op.register_fake(fake)
        self.op.register_vmap(self._batched)

    def __call__(self, *operands: Any) -> Any:
        return self.run(*operands) if is_plain() else self.op(*operands)

    def _batched(self, info: Any, in_dims: Any, *operands: Any) -> Any:
        """Under vmap each row of a mapped leaf becomes a leaf of its own, still in one launch."""
        n = batching.check_rows(info)
        rows = []
        for name, value, dims in zip(self._operands, operands, in_dims, strict=True):
            if name in self._mutates:
                batching.check_mapped(name, dims)
            rows.append(batching.OPERANDS.get(name, batching.same)(value, dims, n))
        return batching.results(self.op(*rows), n)


def operator(name: str, **about: Any) -> Callable[[Callable[..., Any]], Operator]:
    """The decorator: see `Operator`."""
    return lambda run: Operator(name, run, **about)
