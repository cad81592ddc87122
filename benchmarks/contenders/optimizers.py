"""An optimizer's whole step: torch's without a penalty, ours with penalty and value in one pass, torch's with a
penalty beside it. Gradients come from outside and stay the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.models.cases import L1, L2, RATE, Tree

# name -> the class in torch.optim and in fused_penalty.torch.optim, and its options
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "AdamW": ("AdamW", {}),
}
FORMS = ("ours", "torch fused", "torch foreach", "torch fused, add_grad_", "torch fused, prox_")


def step(kind: str, form: str, tree: Tree) -> Callable[[], object]:
    """The call that is timed."""
    import torch

    from fused_penalty.torch import add_grad_, optim, prox_

    name, options = KINDS[kind]
    xs = [torch.nn.Parameter(x.clone()) for x in tree.torch]
    for x, g in zip(xs, tree.torch, strict=True):
        x.grad = g * 1e-3
    if form == "ours":
        mine = getattr(optim, name)(xs, lr=RATE, l1=L1, l2=L2, **options)

        def call() -> None:
            mine.step()
            _ = mine.penalty

        return call
    how = {"foreach": True} if form == "torch foreach" else {"fused": True}
    its = getattr(torch.optim, name)(xs, lr=RATE, **how, **options)
    if form.endswith("add_grad_"):
        return lambda: (add_grad_(xs, L1, L2), its.step())
    if form.endswith("prox_"):
        return lambda: (its.step(), prox_(xs, L1, L2, step=RATE))
    return its.step  # type: ignore[no-any-return]


def builders() -> dict[str, Callable[[Tree], Callable[[], object]]]:
    """By the name of the row: "AdamW ours"."""
    return {f"{kind} {form}": functools.partial(step, kind, form) for kind in KINDS for form in FORMS}
