"""Optimizers' steps for the tests of the kernels: coefficients, and leaves with all their arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fused_penalty import _cpu
from fused_penalty._core.plan import BOTH, plan_of_layout
from fused_penalty._core.steps import COEFFICIENTS, COLUMNS, Step, StepRole
from tests.support.edges import SIZES

F64 = torch.float64
NONE = dict.fromkeys(COEFFICIENTS, 0.0) | {
    "scale": 1.0,
    "shrink": 1.0,
    "take": 1.0,
    "rate": 0.1,
    "root": 1.0,
    "epsilon": 1e-3,
}
ADAM = {"keep": 0.999, "rest": 0.001, "take": 0.1, "root": 3.0, "shrink": 0.9}
CASES: list[tuple[Step, dict[str, float]]] = [
    (Step.SGD, {}),
    (Step.SGD, {"threshold": 0.01, "pull": 0.02}),
    (Step.SGD, {"l1": 0.01, "l2": 0.3, "decay": 0.1, "scale": -1.0}),
    (Step.MOMENTUM, {"keep": 0.9, "take": 0.7, "threshold": 0.1}),
    (Step.MOMENTUM, {"keep": 0.9, "look": 0.9}),
    (Step.ADAM, {**ADAM, "threshold": 0.01, "pull": 0.03, "metric": 1.0}),
    (Step.ADAM, {**ADAM, "threshold": 0.01, "pull": 0.03}),
    (Step.ADAM, {**ADAM, "threshold": 0.01, "metric": 1.0, "skip": 1.0}),
    (Step.AMSGRAD, {**ADAM, "threshold": 0.01, "metric": 1.0}),
    (Step.PROX_METRIC, {"root": 2.0, "threshold": 0.05, "pull": 0.1, "metric": 1.0}),
]
DTYPES = [(d, s) for d in (torch.float16, torch.bfloat16) for s in (d, torch.float32)]
DTYPES += [(torch.float32, torch.float32), (F64, F64)]


class Arrays:
    """Leaves of every size, their anchors and state, the same for the same seed."""

    def __init__(
        self, step: Step, kinds: Sequence[tuple[Any, Any]], *, anchored: bool, sizes: Sequence[int] = SIZES,
        skew: bool = False,
    ) -> None:  # fmt: skip
        """Leaf i has the dtype and the dtype of its state of kind i, in turn. `skew`: some start elsewhere than at a
        multiple of 16 bytes, each array of a leaf alike or not."""
        generator = torch.Generator().manual_seed(0)

        def made(which: int, *, positive: bool = False, shift: int = 1) -> list[Any]:
            found = []
            for i, n in enumerate(sizes):
                x = torch.randn(n, generator=generator, dtype=F64)
                x = (x.abs() if positive else x).to(kinds[i % len(kinds)][which])
                ahead = i // len(kinds) % 3 * shift if skew else 0
                memory = x.new_empty(n + ahead)
                memory[ahead:] = x
                found.append(memory[ahead:])
            return found

        self.step = step
        self.xs = made(0)
        self.anchors = made(0) if anchored else []
        self.arrays: dict[StepRole, list[Any]] = {}
        for role in step.arrays:
            positive = role in (StepRole.SECOND, StepRole.MAXIMUM)
            odd = role is StepRole.GRADIENT and step is Step.SGD
            self.arrays[role] = made(int(role is not StepRole.GRADIENT), positive=positive, shift=2 if odd else 1)
        for x in self.arrays.get(StepRole.SECOND, ()):
            x[::7] = 0  # never had a gradient
        for values in self.arrays.values():
            values[1] = None  # this leaf is only read

    def coefficients(self, **changed: float) -> Any:
        return torch.tensor([list({**NONE, **changed}.values())] * len(self.xs), dtype=F64)

    def written(self) -> Iterator[Any]:
        yield from self.xs
        for role in self.step.state:
            yield from (x for x in self.arrays[role] if x is not None)

    def reads(self) -> list[Any]:
        """x, the anchors and the arrays of all roles, as the native modules take them."""
        x = _cpu.Tensors(self.xs)
        anchor = _cpu.Tensors(self.anchors) if self.anchors else None
        return [x, anchor, *(_cpu.Tensors(self.arrays[r], x) if r in self.arrays else None for r in StepRole)]

    def launch(self, coefficients: Any, isa: Any, threads: int = 1) -> Any:
        reads = self.reads()
        total = torch.empty(len(self.xs), len(COLUMNS), dtype=F64)
        _cpu.step(self.step, plan_of_layout(reads[0].layout, BOTH).table, *reads, coefficients, total, threads, isa)
        return total


def bits(tensors: Iterator[Any]) -> list[bytes]:
    return [x.detach().contiguous().view(torch.uint8).numpy().tobytes() if x.numel() else b"" for x in tensors]
