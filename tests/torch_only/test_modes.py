"""Every torch verb in every mode that can be switched on: its result is that of the float64 formulas, or it is refused
by an error that says what to do instead. MODES says which, in words; the tests hold it to that."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor

from fused_penalty.torch import penalty
from tests.torch_only.mode_checks import (
    Check,
    after,
    anomalies,
    by_grad,
    by_jvp,
    by_vjp,
    checkpointed,
    compiled,
    default_device,
    default_dtype,
    derivatives,
    deterministic,
    dispatch_mode,
    exported,
    fake,
    flop_counter,
    function_mode,
    functional_call,
    fx,
    inference,
    jit_traced,
    vmap,
    within,
)
from tests.torch_only.modes import VERBS

CHECKS: dict[str, Check] = {
    "no mode": within(contextlib.nullcontext),
    "torch.device('meta') as context": within(lambda: torch.device("meta")),
    "torch.set_default_device('meta')": within(default_device),
    "default dtype float64": default_dtype(torch.float64),
    "default dtype float16": default_dtype(torch.float16),
    "default dtype bfloat16": default_dtype(torch.bfloat16),
    "no_grad": within(torch.no_grad),
    "inference_mode": inference,
    "autocast to bfloat16": within(lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "autocast to float16": within(lambda: torch.autocast("cpu", dtype=torch.float16)),
    "deterministic algorithms": within(deterministic),
    "anomaly detection": within(anomalies),
    "saved_tensors_hooks": within(lambda: torch.autograd.graph.save_on_cpu()),
    "TorchFunctionMode: empty in float16": within(lambda: function_mode({"dtype": torch.float16})),
    "TorchFunctionMode: empty on meta": within(lambda: function_mode({"device": "meta"})),
    "TorchDispatchMode": within(dispatch_mode),
    "FlopCounterMode": within(flop_counter),
    "FakeTensorMode": fake,
    "torch.func.vmap": vmap,
    "torch.func.grad": derivatives(by_grad),
    "torch.func.vjp": derivatives(by_vjp),
    "torch.func.jvp": derivatives(by_jvp),
    "torch.func.functional_call": after(functional_call),
    "torch.compile": compiled(False),
    "torch.compile, dynamic shapes": compiled(True),
    "torch.export": after(exported),
    "make_fx": after(fx("real")),
    "make_fx, fake": after(fx("fake")),
    "make_fx, symbolic": after(fx("symbolic")),
    "torch.func.functionalize": after(lambda f, example: torch.func.functionalize(lambda *xs: tuple(f(*xs)))),
    "torch.jit.trace": after(jit_traced),
    "checkpoint": after(checkpointed(False)),
    "checkpoint, reentrant": after(checkpointed(True)),
}


@dataclass(frozen=True)
class Refusal:
    """What a mode does not allow: by which error, and why."""

    verbs: tuple[str, ...]
    kind: type[Exception]
    message: str
    why: str


WRITES = ("prox_", "regularize_", "attach, prox")
NO_DERIVATIVE = Refusal(
    WRITES, ValueError, r"^params at '0': .* takes its derivative, and a write is not recorded\. Write outside",
    "a write to what is differentiated is not recorded: write outside, or to a detached tensor",
)  # fmt: skip
NO_GRAPH = Refusal(
    ("penalty and backward",), RuntimeError, "does not require grad",
    "nothing is recorded here, for any function of torch",
)  # fmt: skip

REFUSED: dict[str, Refusal] = {
    "no_grad": NO_GRAPH,
    "inference_mode": NO_GRAPH,
    "torch.func.grad": NO_DERIVATIVE,
    "torch.func.vjp": NO_DERIVATIVE,
    "torch.func.jvp": NO_DERIVATIVE,
    "torch.func.functionalize": Refusal(
        (*WRITES, "add_grad_", "attach", "clip_grad_norm_"),
        RuntimeError,
        r"functionalize cannot follow .*\. Use torch\.compile",
        "torch cannot functionalize a custom op that writes: use torch.compile or torch.export",
    ),
}  # fmt: skip


def _words(mode: str) -> str:
    if mode not in REFUSED:
        return "right"
    refusal = REFUSED[mode]
    return f"right, but {'; '.join(refusal.verbs)} refused: {refusal.why}"


# What each mode does, in words, for docs/reliability.md.
MODES: dict[str, str] = {mode: _words(mode) for mode in CHECKS}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("mode", CHECKS)
def test_mode(mode: str, verb: str) -> None:
    refusal = REFUSED.get(mode)
    if refusal is None or verb not in refusal.verbs:
        CHECKS[mode](VERBS[verb])
        return
    with pytest.raises(refusal.kind, match=refusal.message):
        CHECKS[mode](VERBS[verb])


def test_every_mode_is_described_and_every_refused_verb_exists() -> None:
    assert set(REFUSED) <= set(MODES) == set(CHECKS)
    assert {verb for refusal in REFUSED.values() for verb in refusal.verbs} <= set(VERBS)


def test_jit_trace_reads_its_arguments() -> None:
    """It recorded the empty result that the kernel fills, and nothing that fills it."""
    traced = jit_traced(lambda x: [penalty([x], 0.01, 0.1)], [torch.ones(3)])
    assert traced(torch.full((3,), 2.0))[0].item() == pytest.approx(1.26)


def test_a_trace_can_be_saved_and_differentiated_twice(tmp_path: Path) -> None:
    traced = jit_traced(lambda x: [penalty([x], 0.25, 0.5)], [torch.ones(3)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        torch.jit.save(traced, str(tmp_path / "penalty.pt"))
        loaded = torch.jit.load(str(tmp_path / "penalty.pt"))
    x = torch.tensor([1.0, -2.0, 0.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(loaded(x)[0], x, create_graph=True)
    assert gradient.tolist() == [1.25, -2.25, 0.0]
    assert torch.autograd.grad(gradient.sum(), x)[0].tolist() == [1.0] * 3


def test_a_static_zero_leaves_no_term_in_the_gradient_of_an_exported_graph() -> None:
    f = exported(lambda x: [penalty([x], 1.0, 0.0)], [torch.ones(3, requires_grad=True)])
    x = torch.tensor([1.0, -torch.inf, 0.0], requires_grad=True)
    f(x)[0].backward()
    assert x.grad.tolist() == [1.0, -1.0, 0.0]


def test_script_is_refused_by_torch() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
        with pytest.raises(Exception, match="variable number of arguments or use keyword-only"):
            torch.jit.script(lambda_of_penalty)


def lambda_of_penalty(x: Tensor) -> Tensor:
    return penalty([x], 0.1)


def test_a_zero_tensor_strength_removes_its_term_from_a_trace() -> None:
    """There `scale` has no Function of its own."""

    def f(x: Tensor, l1: Tensor) -> list[Tensor]:
        return [penalty([x], l1, 1.0)]

    traced = jit_traced(f, [torch.ones(2), torch.ones(())])
    for run in (traced, lambda x, l1: torch.func.functionalize(lambda *a: tuple(f(*a)))(x, l1)):
        assert run(torch.tensor([1.0, torch.inf]), torch.tensor(0.0))[0].item() == torch.inf
        l1 = torch.tensor(0.0, requires_grad=True)
        (slope,) = torch.autograd.grad(run(torch.tensor([1.0, -2.0]), l1)[0], l1)
        assert slope.item() == 3.0


def test_a_float_strength_that_changes_between_compiled_calls() -> None:
    """torch.compile makes it a symbol at the second value."""
    torch._dynamo.reset()
    f = torch.compile(lambda x, l1: penalty([x], l1, 0.5), backend="eager", fullgraph=True)
    x = torch.tensor([1.0, -2.0])
    for l1 in (0.25, 0.5, 0.75, 0.0, 1.0):
        assert f(x, l1).item() == 3 * l1 + 2.5
    with pytest.raises(torch._dynamo.exc.Unsupported):
        f(x, -1.0)
    with pytest.raises(ValueError, match=r"l1: the strength -1\.0"):
        torch.compile(lambda x, l1: penalty([x], l1), backend="eager")(x, -1.0)
