"""The modes of torch that can be switched on: how a verb (modes.py) is called and compared in each."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.torch_only.modes import Verb, array, check, leaves

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
