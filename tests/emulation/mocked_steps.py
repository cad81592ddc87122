"""What test_mock_driver.py runs of the steps, each in a process of its own: `_cuda.step` and torch's backend `cuda` on
the mock driver, for which the CPU's memory is the device's, beside the CPU's kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
import torch

from fused_penalty._core.plan import BOTH, GPU_CHUNK, plan_of_layout
from fused_penalty._core.steps import COEFFICIENTS, COLUMNS, Step, StepRole
from fused_penalty.torch.backends import cpu
from tests.emulation.mocked import Mock
from tests.support.step_cases import ADAM, CASES, DTYPES, F64, Arrays, bits

HERE = (1, 0)  # the CPU, as DLPack numbers devices
SIZES = [n for n in (3, 0, 1, 17, 2048, 5000, GPU_CHUNK + 9) for _ in DTYPES]  # each for every kind of leaf


class Call:
    """The arguments of `_cuda.step`, of which a test changes a part."""

    def __init__(self, mock: Mock, arrays: Arrays, coefficients: torch.Tensor) -> None:
        self.mock, self.arrays = mock, arrays
        reads = arrays.reads()
        table = plan_of_layout(reads[0].layout, BOTH, GPU_CHUNK).table
        leaves = len(arrays.xs)
        room = mock.cuda.step_scratch_bytes(arrays.step, bool(arrays.anchors), len(table), leaves)
        names = ("x", "anchor", *(role.value for role in StepRole))
        self.arguments: dict[str, Any] = {
            "step": arrays.step,
            "table": table,
            "table_there": table.ctypes.data,
            **dict(zip(names, reads, strict=True)),
            "coefficients": coefficients,
            "scratch": torch.full((room // 8, 1), torch.nan, dtype=F64),
            "totals": torch.full((leaves, len(COLUMNS)), torch.nan, dtype=F64),
            "device": HERE,
            "stream": 0,
        }

    def __call__(self) -> torch.Tensor:
        self.mock.cuda.step(**self.arguments)
        return self.arguments["totals"]

    def refuses(self, message: str, **changed: Any) -> None:
        before, launches = bits(self.arrays.written()), self.mock.count("cuLaunchKernel")
        with pytest.raises((ValueError, TypeError), match=message):
            self.mock.cuda.step(**{**self.arguments, **changed})
        assert bits(self.arrays.written()) == before
        assert self.mock.count("cuLaunchKernel") == launches


def mixed(step: Step, anchored: bool) -> Arrays:
    """Leaves of all kinds, on and off multiples of 16 bytes, of which one is only read and one is not finite."""
    made = Arrays(step, DTYPES, anchored=anchored, sizes=SIZES, skew=True)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])
    for tensors in (made.xs, made.arrays.get(StepRole.GRADIENT)):
        if tensors is not None:
            for x in tensors[-len(DTYPES) :]:
                x[100:105] = special if tensors is made.xs else special.flip(0)
    return made


def same(found: Arrays, expected: Arrays, totals: Sequence[torch.Tensor]) -> None:
    """The same bits, but of a NaN; sums that are added up in another order."""
    for ours, theirs in zip(found.written(), expected.written(), strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert bits(iter([ours.nan_to_num(7)])) == bits(iter([theirs.nan_to_num(7)]))
    torch.testing.assert_close(*totals, rtol=1e-6, atol=1e-30, equal_nan=True)
    assert torch.equal(totals[0][:, 4:], totals[1][:, 4:])  # counts


def equal(mock: Mock) -> None:
    """Every case, all kinds of leaves in one launch: what the CPU's kernels write, to the bit."""
    for step, changed in CASES:
        for anchored in (False, True):
            ours, theirs = mixed(step, anchored), mixed(step, anchored)
            coefficients = ours.coefficients(**changed)
            coefficients[4, COEFFICIENTS.index("skip")] = 1  # of one leaf
            launches = mock.count("cuLaunchKernel")
            found = Call(mock, ours, coefficients)()
            assert mock.count("cuLaunchKernel") == launches + 1
            same(ours, theirs, (found, theirs.launch(coefficients, cpu._cpu.best_isa())))
    mock.check_memory()


def many(mock: Mock) -> None:
    """More addresses than a launch holds: 4,080 travel with a small launch each."""
    ours, theirs = (Arrays(Step.ADAM, DTYPES[-1:], anchored=False, sizes=[3] * 1021) for _ in range(2))
    coefficients = ours.coefficients(**ADAM, threshold=0.01, metric=1.0)
    launches = mock.count("cuLaunchKernel")
    found = Call(mock, ours, coefficients)()
    assert mock.count("cuLaunchKernel") == launches + 3
    same(ours, theirs, (found, theirs.launch(coefficients, cpu._cpu.best_isa())))


def torch_backend(mock: Mock) -> None:
    """Through the launcher of torch, with a leaf in another order than its gradient and one with gaps."""
    from fused_penalty.torch.backends import cuda

    class Stream:
        cuda_stream = 0

    found = []
    for launcher in (cuda.LAUNCHER, cpu.LAUNCHER):
        made = Arrays(Step.MOMENTUM, DTYPES[4:5], anchored=True, sizes=[60, 7, 40])
        made.xs[0], made.xs[2] = made.xs[0].view(6, 10).t(), made.xs[2][::2]
        for tensors in (made.anchors, *made.arrays.values()):
            tensors[0], tensors[2] = tensors[0].view(10, 6), tensors[2][:20]
        coefficients = made.coefficients(keep=0.9, threshold=0.1)
        assert launcher.step is not None
        with (
            patch.object(torch.cuda, "device", contextlib.nullcontext),
            patch.object(torch.cuda, "current_stream", Stream),
        ):
            totals = launcher.step(made.step, made.xs, made.anchors, made.arrays, coefficients)
        found.append((made, totals))
    (ours, mine), (theirs, its) = found
    same(ours, theirs, (mine, its))


def refusals(mock: Mock) -> None:
    """What does not fit is refused before anything is launched; the checks of the arrays are those of `_cpu.step`."""
    arrays = Arrays(Step.ADAM, DTYPES[4:5], anchored=True, sizes=[20_000, 3, 5])
    call = Call(mock, arrays, arrays.coefficients(**ADAM))
    call()
    other = Arrays(Step.ADAM, DTYPES[4:5], anchored=True, sizes=[20_001, 3, 5])
    call.refuses("no step has the code", step=len(Step))
    call.refuses("first is missing", first=None)
    call.refuses("maximum is given", maximum=call.arguments["second"])
    call.refuses("gradient must have", gradient=other.reads()[2])
    call.refuses("of the plan does not fit", table=plan_of_layout(other.reads()[0].layout, BOTH).table)
    call.refuses("table_there has no memory", table_there=0)
    call.refuses("x must lie on the device of the launch", device=(2, 0))
    call.refuses("scratch must have step_scratch_bytes", scratch=call.arguments["scratch"][1:])
    call.refuses("row for each slot", coefficients=call.arguments["coefficients"][1:])
    call.refuses("float64", totals=call.arguments["totals"].float())
    mock.fail("cuLaunchKernel")
    with pytest.raises(RuntimeError, match="cuLaunchKernel of fused_penalty_step_Adam_anchored: invalid argument"):
        call()
    call()
    assert mock.count("calls that held the GIL") == 0


def jax_optimizers(mock: Mock) -> None:
    """Ten donated steps of each optimizer out of a command buffer: the CPU's results, and nobody else's memory."""
    import jax
    import jax.numpy as jnp

    from fused_penalty.jax import optim
    from tests.emulation.mocked import close, tree

    makers = {
        "sgd": lambda b: optim.sgd(0.1, l1=0.1, backend=b),
        "momentum": lambda b: optim.sgd(0.1, 0.9, l1=0.1, anchor=tree(148, 1), backend=b),
        "adamw": lambda b: optim.adamw(0.1, l1=0.1, l2=0.2, state_dtype=jnp.float32, backend=b),
        "amsgrad": lambda b: optim.adam(0.1, amsgrad=True, l1=0.1, backend=b),
    }
    for name, make in makers.items():
        mock.command_buffers(1)
        found: dict[str, Any] = {}
        recorded = mock.count("records")
        for backend in ("mock", "cpu"):
            optimizer, params = make(backend), tree(148)
            state, step = optimizer.init(params), jax.jit(optimizer.step, donate_argnums=(0, 2))
            for k in range(10):
                params, state, summary = step(params, tree(148, 2 + k), state)
            assert backend == "cpu" or int(summary.zeros) > 0, name
            found[backend] = params, state, summary
        close(found["mock"], found["cpu"])
        assert mock.count("records") == recorded + 1, name
    mock.check_memory()
