"""Every torch verb in every mode that can be switched on: its result is that of the float64 formulas, or it is refused
by an error that says what to do instead. MODES says which, in words; the tests hold it to that."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn

from fused_penalty.torch import penalty
from modes import VERBS, Verb, array, check, leaves

Check = Callable[[Verb], None]


def fresh(verb: Verb, seed: int = 0) -> list[Tensor]:
    return [x.requires_grad_(verb.requires_grad) for x in leaves(seed)]


def within(make: Callable[[], contextlib.AbstractContextManager[Any]]) -> Check:
    """The call, and what follows it, inside a context."""

    def run(verb: Verb) -> None:
        xs = fresh(verb)
        expected = verb.expect(*map(array, xs))
        with make():
            found = verb.finish(verb.call(*xs), xs)
        check(found, expected)

    return run


def after(transform: Callable[[Callable[..., Any], list[Tensor]], Callable[..., Any]]) -> Check:
    """A transformed function that is called twice, each time with values it has not seen."""

    def run(verb: Verb) -> None:
        f = transform(verb.call, fresh(verb, 9))
        for seed in (0, 1):
            xs = fresh(verb, seed)
            expected = verb.expect(*map(array, xs))
            check(verb.finish(list(f(*xs)), xs), expected)

    return run


# Contexts


@contextlib.contextmanager
def setting(get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> Iterator[None]:
    old = get()
    put(value)
    try:
        yield
    finally:
        put(old)


def default_dtype(dtype: torch.dtype) -> Check:
    return within(lambda: setting(torch.get_default_dtype, torch.set_default_dtype, dtype))


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def anomalies() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection")
        with torch.autograd.detect_anomaly():
            yield


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """With memory filled, too, so that what is read before it is written shows."""
    utils = torch.utils.deterministic
    with (
        setting(
            lambda: utils.fill_uninitialized_memory, lambda v: setattr(utils, "fill_uninitialized_memory", v), True
        ),
        setting(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True),
    ):
        yield


def function_mode(change: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """A user's mode that gives torch.empty other arguments where they are not named."""
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return f(*args, **({**change, **(kwargs or {})} if f is torch.empty else kwargs or {}))

    return Mode()


def dispatch_mode() -> contextlib.AbstractContextManager[Any]:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return f(*args, **(kwargs or {}))

    return Mode()


def flop_counter() -> contextlib.AbstractContextManager[Any]:
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)


def inference(verb: Verb) -> None:
    within(torch.inference_mode)(verb)
    xs = fresh(verb)
    expected = verb.expect(*map(array, xs))
    with torch.inference_mode():
        found = verb.finish(verb.call(*(x.clone() for x in xs)), xs)  # inference tensors
    check(found, expected)


# Transforms


def vmap(verb: Verb) -> None:
    """Rows of one call each."""
    rows = [leaves(seed) for seed in range(3)]
    expected = [verb.expect(*map(array, row)) for row in rows]
    found = torch.func.vmap(lambda *xs: tuple(verb.call(*xs)))(*map(torch.stack, zip(*rows, strict=True)))
    for i, want in enumerate(expected):
        check([f[i] for f in found], want[: len(found)])


def derivatives(take: Callable[[Callable[..., Any], list[Tensor]], list[Tensor]]) -> Check:
    """Of the first result, plus the sum of the leaves, so that a detached result has a derivative, too."""

    def run(verb: Verb) -> None:
        xs = leaves()
        slopes = [np.zeros(x.shape) if verb.derivative is None else verb.derivative(array(x)) for x in xs]
        found = take(lambda *ys: verb.call(*ys)[0].sum() + sum(y.float().sum() for y in ys), xs)
        check(found, [1 + s for s in slopes], terms=1.0)

    return run


def by_grad(f: Callable[..., Any], xs: list[Tensor]) -> list[Tensor]:
    return list(torch.func.grad(f, argnums=(0, 1, 2))(*xs))


def by_vjp(f: Callable[..., Any], xs: list[Tensor]) -> list[Tensor]:
    value, pull = torch.func.vjp(f, *xs)
    return list(pull(torch.ones_like(value)))


def by_jvp(f: Callable[..., Any], xs: list[Tensor]) -> list[Tensor]:
    """The whole gradient, a basis vector at a time."""
    found = []
    for i, x in enumerate(xs):
        columns = []
        for k in range(x.numel()):
            tangents = [torch.zeros_like(y) for y in xs]
            tangents[i].view(-1)[k] = 1
            columns.append(torch.func.jvp(f, tuple(xs), tuple(tangents))[1])
        found.append(torch.stack(columns).reshape(x.shape))
    return found


class Holder(nn.Module):
    def __init__(self, f: Callable[..., Any], xs: list[Tensor]) -> None:
        super().__init__()
        self.f, self.xs = f, nn.ParameterList(xs)

    def forward(self) -> tuple[Tensor, ...]:
        return tuple(self.f(*self.xs))


def functional_call(f: Callable[..., Any], example: list[Tensor]) -> Callable[..., Any]:
    module = Holder(f, example)
    return lambda *xs: torch.func.functional_call(module, {f"xs.{i}": x for i, x in enumerate(xs)}, ())


def compiled(dynamic: bool) -> Check:
    """As one graph; of an optimizer's step what torch compiles of it, which is not its construction."""
    options: dict[str, Any] = {"backend": "aot_eager", "dynamic": dynamic}

    def run(verb: Verb) -> None:
        torch._dynamo.reset()
        if verb.setup is None:
            after(lambda f, example: torch.compile(f, fullgraph=True, **options))(verb)
            return
        xs = fresh(verb)
        expected = verb.expect(*map(array, xs))
        check(torch.compile(verb.setup(xs), **options)(), expected)

    return run


class Calls(nn.Module):
    def __init__(self, f: Callable[..., Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.f(*xs))


def exported(f: Callable[..., Any], example: list[Tensor]) -> Callable[..., Any]:
    return torch.export.export(Calls(f), tuple(example)).module()


def fx(tracing_mode: str) -> Callable[..., Callable[..., Any]]:
    from torch.fx.experimental.proxy_tensor import make_fx

    return lambda f, example: make_fx(lambda *xs: tuple(f(*xs)), tracing_mode=tracing_mode)(*example)


def jit_traced(f: Callable[..., Any], example: list[Tensor]) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.trace.* is (deprecated|not supported)", DeprecationWarning)
        warnings.filterwarnings(
            "ignore", "torch.tensor results are registered", torch.jit.TracerWarning
        )  # the signs of attach
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean", torch.jit.TracerWarning)
        return torch.jit.trace(lambda *xs: tuple(f(*xs)), tuple(example), check_trace=False)


def checkpointed(reentrant: bool) -> Callable[..., Callable[..., Any]]:
    from torch.utils.checkpoint import checkpoint

    def run(f: Callable[..., Any], *xs: Tensor) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
            return checkpoint(lambda *ys: tuple(f(*ys)), *xs, use_reentrant=reentrant)

    return lambda f, example: lambda *xs: run(f, *xs)


def fake(verb: Verb) -> None:
    """Only shapes and dtypes are computed."""
    from torch._subclasses import FakeTensorMode

    xs = fresh(verb)
    real = verb.finish(verb.call(*xs), xs)
    with FakeTensorMode() as mode:
        ys = [mode.from_tensor(x) for x in fresh(verb)]
        found = verb.finish(verb.call(*ys), ys)
    assert [(f.shape, f.dtype, f.device) for f in found] == [(r.shape, r.dtype, r.device) for r in real]


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
        (*WRITES, "add_grad_", "attach"), RuntimeError, r"functionalize cannot follow .*\. Use torch\.compile",
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
