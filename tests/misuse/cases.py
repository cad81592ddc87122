"""Wrong calls, each with the argument that its error must name: every verb of both frameworks × every mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import fused_penalty as fp

READ = ("penalty", "penalty_and_grad", "sums", "stats")
VERBS = {"torch": (*READ, "add_grad_", "prox_", "regularize_"), "jax": (*READ, "prox")}
NO_STRENGTHS = ("sums", "stats", "global_norm")
STEPS = ("prox", "prox_")
IN_PLACE = ("add_grad_", "prox_", "regularize_", "clip_grad_norm_")
Lib = Any  # a frontends.Frontend
Wrong = Callable[[Lib], Any]


@dataclass(frozen=True)
class Case:
    """`wrong` makes the value for `argument` out of the framework."""

    framework: str
    verb: str
    argument: str
    what: str
    wrong: Wrong

    def __str__(self) -> str:
        return f"{self.framework}-{self.verb}-{self.argument}-{self.what}"


def array(x: Any, dtype: str = "float32") -> Wrong:
    return lambda lib: lib.to(np.array(x, dtype))


def always(value: Any) -> Wrong:
    return lambda lib: value


def other(lib: Lib) -> Any:
    """An array of the framework that this is not."""
    import jax.numpy as jnp
    import torch

    return torch.ones(()) if lib.framework == "jax" else jnp.ones(())


def cyclic(lib: Lib) -> Any:
    found: dict[str, Any] = {}
    found["again"] = found
    return found


def deep(leaf: Wrong, depth: int = 10_000) -> Wrong:
    def nested(lib: Lib) -> Any:
        found = leaf(lib)
        for _ in range(depth):
            found = {"x": found}
        return found

    return nested


STRENGTHS: dict[str, Wrong] = {
    "negative": always(-1.0),
    "negative int": always(-1),
    "nan": always(float("nan")),
    "inf": always(float("inf")),
    "numpy negative": always(np.float32(-2)),
    "numpy nan": always(np.array(np.nan)),
    "huge int": always(10**400),
    "bool": always(True),
    "numpy bool": always(np.True_),
    "text": always("0.1"),
    "none": always(None),
    "complex": always(1j),
    "vector of numpy": always(np.ones(2)),
    "vector": array([0.1, 0.2]),
    "bool array": array(True, "bool"),
    "complex array": array(1, "complex64"),
    "array of the other framework": other,
    "function": always(lambda path, leaf: 0.1),
    "object": always(object()),
    "type": always(float),
    "set": always({0.1}),
    "bytes": always(b"1"),
    "a leaf is negative": always({"w": 0.1, "b": -1.0}),
    "a leaf is a text": always({"w": 0.1, "b": "x"}),
    "a leaf is missing": always({"w": 0.1}),
    "one leaf too many": always({"w": 0.1, "b": 0.1, "c": 0.1}),
    "a leaf is a vector": lambda lib: {"w": 0.1, "b": lib.to(np.ones(2, np.float32))},
    "too deep for params": always({"w": {"x": 0.1}, "b": 0.1}),
    "cyclic": cyclic,
    "nested 10,000 deep": deep(always(0.1)),
    "by_path: no match": always(fp.by_path({"w": 0.1})),
    "by_path: never first": always(fp.by_path({"*": 0.1, "w": 0.2})),
    "by_path: negative": always(fp.by_path({"w": -0.1, "*": 0.1})),
    "by_leaf: text": always(fp.by_leaf(lambda path, leaf: "x")),
    "by_leaf: none": always(fp.by_leaf(lambda path, leaf: None)),
}
STEP: dict[str, Wrong] = {k: v for k, v in STRENGTHS.items() if k in list(STRENGTHS)[: list(STRENGTHS).index("set")]}
ORDERS: dict[str, Wrong] = {
    "three": always(3),
    "zero": always(0),
    "negative": always(-float("inf")),
    "nan": always(float("nan")),
    "bool": always(True),
    "text": always("fro"),
    "none": always(None),
    "complex": always(1j),
    "array": array(2.0),
}
LIMITS: dict[str, Wrong] = {k: STRENGTHS[k] for k in list(STRENGTHS)[: list(STRENGTHS).index("set")] if "inf" not in k}
LIMITS.pop("huge int")  # is taken for inf, which never clips
MASKS: dict[str, Wrong] = {
    "a number": always({"w": 1, "b": True}),
    "a text": always("w"),
    "an integer": always(1),
    "a leaf is missing": always({"w": True}),
    "one leaf too many": always({"w": True, "b": True, "x": False}),
    "function of numbers": always(lambda params: {"w": True, "b": 0.0}),
    "function of nothing": always(lambda params: object()),
    "an array": array([True, False], "bool"),
    "a bool array": array(True, "bool"),
    "cyclic": cyclic,
}
ANCHORS: dict[str, Wrong] = {
    "a leaf is missing": lambda lib: lib.to({"w": np.ones(3, np.float32)}),
    "another shape": lambda lib: lib.to({"w": np.ones(3, np.float32), "b": np.ones(5, np.float32)}),
    "another shape, alike in size": lambda lib: lib.to({"w": np.ones((1, 3), np.float32), "b": np.ones(2, np.float32)}),
    "another dtype": lambda lib: lib.to({"w": np.ones(3, np.float16), "b": np.ones(2, np.float32)}),
    "a text": always("anchor"),
    "a number": always(1.0),
    "texts": always({"w": "a", "b": "b"}),
    "of the other framework": lambda lib: {"w": other(lib), "b": other(lib)},
    "none for a leaf": lambda lib: {"w": None, "b": lib.to(np.ones(2, np.float32))},
    "other names": lambda lib: lib.to({"w": np.ones(3, np.float32), "c": np.ones(2, np.float32)}),
}
BACKENDS: dict[str, Wrong] = {
    "unknown": always("gpu"),
    "capitals": always("CPU"),
    "a list": always([]),
    "a number": always(0),
    "false": always(False),
    "of the other framework": lambda lib: "triton" if lib.framework == "jax" else "ffi",
}
PARAMS: dict[str, Wrong] = {
    "int32": lambda lib: [lib.to(np.ones(2, np.int32))],
    "bool": lambda lib: [lib.to(np.ones(2, np.bool_))],
    "complex64": lambda lib: [lib.to(np.ones(2, np.complex64))],
    "a text": always(["text"]),
    "a function": always([print]),
    "an object": always([object()]),
    "of the other framework": lambda lib: {"w": other(lib)},
    "cyclic": cyclic,
    "nested 10,000 deep": deep(lambda lib: lib.to(np.ones(2, np.float32))),
}
# In JAX leaves pair by structure, so one name for two of them is not a mistake.
TWICE: dict[str, Wrong] = {
    "two leaves of one name": lambda lib: lib.to({"a.b": np.ones(2, np.float32), "a": {"b": np.ones(3, np.float32)}}),
}


def torch_params() -> dict[str, Wrong]:
    """Tensors that no kernel can read."""
    import torch
    from torch.testing._internal.two_tensor import TwoTensor

    return {
        "sparse": lambda lib: [torch.ones(3).to_sparse()],
        "meta": lambda lib: [torch.empty(3, device="meta")],
        "freed memory": lambda lib: [freed()],
        "wrapper": lambda lib: [TwoTensor(torch.ones(3), torch.ones(3))],
        "a number": always(3.0),
        "none": always(None),
        "numpy": always([np.ones(3, np.float32)]),
        "a parameter group": always({"params": [1], "lr": 0.1}),
        "a lazy module": lambda lib: torch.nn.LazyLinear(3),
    }


def freed() -> Any:
    import torch

    x = torch.ones(3)
    x.untyped_storage().resize_(0)
    return x


def torch_written() -> dict[str, Wrong]:
    """Tensors that may be read but not written."""
    import torch

    x = torch.ones(6)
    with torch.inference_mode():
        frozen = torch.ones(3)
    return {
        "expanded": lambda lib: [torch.ones(1).expand(4)],
        "overlapping": lambda lib: [torch.ones(6).as_strided((4, 2), (1, 1))],
        "sharing memory": lambda lib: [x[:4], x[2:]],
        "an inference tensor": lambda lib: [frozen],
        "the result of an operation": lambda lib: [torch.ones(3, requires_grad=True) * 2],
    }


def torch_strengths() -> dict[str, Wrong]:
    import torch
    from torch.testing._internal.two_tensor import TwoTensor

    return {
        "on meta": lambda lib: torch.ones((), device="meta"),
        "wrapper": lambda lib: TwoTensor(torch.ones(()), torch.ones(())),
        "sparse": lambda lib: torch.ones(()).to_sparse(),
    }


def torch_gradients() -> dict[str, Wrong]:
    """For `add_grad_`: leaves whose gradient cannot be added to."""
    import torch

    def with_gradient(g: Any) -> Any:
        x = torch.ones(3, requires_grad=True)
        x.grad = g
        return [x]

    return {
        "its gradient is sparse": lambda lib: with_gradient(torch.ones(3).to_sparse()),
        "its gradient is expanded": lambda lib: with_gradient(torch.ones(1).expand(3)),
    }


def torch_norms() -> dict[str, Wrong]:
    return {k: wrong for k, wrong in torch_params().items() if k != "a parameter group"}


def torch_clipped() -> dict[str, Wrong]:
    """For `clip_grad_norm_`."""
    import torch

    gradients = {k.removeprefix("its gradient "): wrong for k, wrong in torch_gradients().items()}
    return gradients | {
        "no tensors": always([1.0]),
        "a text": always("text"),
        "a number": always(3.0),
        "none": always(None),
        "a mapping": always({"w": torch.ones(3)}),
        "a module": always(torch.nn.Linear(2, 2)),
        "pairs": always(list(torch.nn.Linear(2, 2).named_parameters())),
        "of the other framework": lambda lib: [other(lib)],
    }


def cases(framework: str) -> Iterator[Case]:
    def each(verb: str, argument: str, table: dict[str, Wrong]) -> Iterator[Case]:
        for what, wrong in table.items():
            yield Case(framework, verb, argument, what, wrong)

    torch = framework == "torch"
    strengths = STRENGTHS | (torch_strengths() if torch else {})
    for verb in VERBS[framework]:
        yield from each(verb, "params", PARAMS | (TWICE | torch_params() if torch else {}))
        yield from each(verb, "mask", MASKS)
        yield from each(verb, "anchor", ANCHORS)
        yield from each(verb, "backend", BACKENDS)
        if verb not in NO_STRENGTHS:
            yield from each(verb, "l1", strengths)
            yield from each(verb, "l2", strengths)
        if verb in STEPS:
            yield from each(verb, "step", STEP | (torch_strengths() if torch else {}))
    yield from each("global_norm", "params", PARAMS | (TWICE | torch_norms() if torch else {}))
    yield from each("global_norm", "backend", BACKENDS)
    yield from each("global_norm", "ord", ORDERS)
    if torch:
        yield from each("clip_grad_norm_", "parameters", torch_clipped())
        yield from each("clip_grad_norm_", "max_norm", LIMITS | torch_strengths())
        yield from each("clip_grad_norm_", "norm_type", {k: ORDERS[k] for k in ("text", "none", "complex")})
        yield from each("clip_grad_norm_", "backend", BACKENDS)
        for verb in ("prox_", "regularize_"):
            yield from each(verb, "params", torch_written())
        yield from each("add_grad_", "params", torch_gradients())
        yield from each("add_grad_", "create", {"a text": always("no"), "a number": always(2), "none": always(None)})
