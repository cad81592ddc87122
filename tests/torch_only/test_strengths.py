"""Strengths and steps that are 0-d tensors: learned, or refused by name; never read as "none". (DTensors:
mesh_strengths.py.)"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn

from fused_penalty import by_leaf, by_path
from fused_penalty.torch import add_grad_, attach, penalty, penalty_and_grad, prox_, regularize_
from tests.support import frontends

START = [0.5, -2.0, 0.0]


@pytest.fixture(params=frontends.on_cpu("torch"))
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def with_gradient() -> Tensor:
    x = torch.tensor(START, requires_grad=True)
    x.grad = torch.zeros(3)
    return x


def attached(x: Tensor, l1: Any, backend: str, mode: str) -> None:
    optimizer = torch.optim.SGD([{"params": [x], "l1": l1}], lr=1.0)
    attach(optimizer, mode=mode, backend=backend)
    optimizer.step()


# Each gives l1 to a verb, of which none may act as if it were 0.
VERBS: dict[str, Callable[[Tensor, Any, str], Any]] = {
    "penalty": lambda x, l1, b: penalty([x], l1, backend=b),
    "penalty of a tree": lambda x, l1, b: penalty({"w": x}, {"w": l1}, backend=b),
    "penalty by path": lambda x, l1, b: penalty({"w": x}, by_path({"*": l1}), backend=b),
    "penalty by leaf": lambda x, l1, b: penalty([x], by_leaf(lambda path, leaf: l1), backend=b),
    "penalty_and_grad": lambda x, l1, b: penalty_and_grad([x], l1, backend=b),
    "add_grad_": lambda x, l1, b: add_grad_([x], l1, backend=b),
    "prox_": lambda x, l1, b: prox_([x], l1, backend=b),
    "prox_ step": lambda x, l1, b: prox_([x], 1.0, step=l1, backend=b),
    "regularize_": lambda x, l1, b: regularize_([x], l1, backend=b),
    "attach": lambda x, l1, b: attached(x, l1, b, "grad"),
    "attach prox": lambda x, l1, b: attached(x, l1, b, "prox"),
}


def two_tensor() -> Tensor:
    from torch.testing._internal.two_tensor import TwoTensor

    return TwoTensor(torch.tensor(1.0), torch.tensor(1.0))


def sparse() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its prototypes
        return torch.sparse_coo_tensor(torch.empty(0, 1), torch.ones(1), ())


def fake() -> Tensor:
    """Outside its mode."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.tensor(1.0)


REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "TwoTensor": (two_tensor, r"TwoTensor is a wrapper whose value lies in other tensors\. Give a float or"),
    "learned TwoTensor": (lambda: nn.Parameter(two_tensor()), "TwoTensor is a wrapper"),
    "FakeTensor": (fake, "FakeTensor is a wrapper"),
    "meta": (lambda: torch.tensor(1.0, device="meta"), r"a meta tensor has no value that can be read\. Give a float"),
    "sparse": (sparse, "a sparse .* no value"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, verb: str, backend: str) -> None:
    x = with_gradient()
    make, message = REFUSED[kind]
    argument = "step" if verb == "prox_ step" else "l1"
    with pytest.raises(TypeError, match=rf"^{argument}( at '\w+')?: .*{message}"):
        VERBS[verb](x, make(), backend)
    assert x.tolist() == START
    assert x.grad is not None
    assert not x.grad.any()


def test_masked_tensor() -> None:
    from torch.masked import masked_tensor

    with pytest.warns(UserWarning, match="prototype"):
        l1 = masked_tensor(torch.tensor(1.0), torch.tensor(True))
    with pytest.raises(TypeError, match=r"^l1: a torch\.masked\.\S*MaskedTensor is a wrapper"):
        prox_([torch.ones(2)], l1)


def test_learning_rate_of_attach(backend: str) -> None:
    x = with_gradient()
    optimizer = torch.optim.SGD([x], lr=0.0)
    attach(optimizer, 1.0, mode="prox", backend=backend)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.25)
    optimizer.step()
    assert x.tolist() == [0.25, -1.75, 0.0]


class Sub(Tensor):
    """A subclass with memory of its own."""


PLAIN: dict[str, Callable[[], Tensor]] = {
    "tensor": lambda: torch.tensor(1.0),
    "float16": lambda: torch.tensor(1.0, dtype=torch.float16),
    "int64": lambda: torch.tensor(1),
    "parameter": lambda: nn.Parameter(torch.tensor(1.0)),
    "result": lambda: torch.tensor(0.5, requires_grad=True) * 2,
    "negated": lambda: torch._neg_view(torch.tensor(-1.0)),
    "subclass": lambda: torch.tensor(1.0).as_subclass(Sub),
    "element": lambda: torch.ones(3)[1],
    "buffer": lambda: nn.Buffer(torch.tensor(1.0)),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_every_plain_tensor_acts_as_its_value(kind: str, backend: str) -> None:
    l1 = PLAIN[kind]()
    assert penalty([with_gradient()], l1, backend=backend).item() == 2.5
    assert penalty_and_grad([with_gradient()], l1, backend=backend)[1][0].tolist() == [1.0, -1.0, 0.0]
    found = {}
    for verb in ("add_grad_", "prox_", "prox_ step", "regularize_", "attach", "attach prox"):
        x = with_gradient()
        VERBS[verb](x, l1, backend)
        found[verb] = x.grad.tolist() if verb == "add_grad_" else x.tolist()
    shrunk = [0.0, -1.0, 0.0]
    assert found == {
        "add_grad_": [1.0, -1.0, 0.0],
        "prox_": shrunk,
        "prox_ step": shrunk,
        "regularize_": shrunk,
        "attach": [-0.5, -1.0, 0.0],
        "attach prox": shrunk,
    }


def test_learned_strengths_get_gradients(backend: str) -> None:
    l1, l2 = nn.Parameter(torch.tensor(0.0)), torch.tensor(0.5, requires_grad=True)
    penalty([torch.tensor(START)], l1, l2, backend=backend).backward()
    assert (l1.grad.item(), l2.grad.item()) == (2.5, 4.25)


BAD = [-1.0, float("nan"), -1e-30]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("which", ["step", "l1", "l2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_bad_device_scalar_makes_the_proximal_step_nan(value: float, which: str, dtype: str, backend: str) -> None:
    """It is not read on the host, so it cannot raise; but no plausible number may come of it."""
    start = torch.tensor([0.5, -2.0, 0.0, torch.inf], dtype=getattr(torch, dtype))
    scalar = torch.tensor(value, dtype=torch.float64)
    for static in (0.0, 0.5):
        for anchor in (None, [torch.ones_like(start)]):
            given = {"l1": static, "l2": static, "step": 1.0, which: scalar}
            x = start.clone()
            prox_([x], **given, anchor=anchor, backend=backend)
            assert x.isnan().all(), (static, anchor, x)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("which", ["l1", "l2"])
def test_a_bad_device_scalar_makes_regularize_nan(value: float, which: str, backend: str) -> None:
    for static in (0.0, 0.5):
        x = torch.tensor(START)
        regularize_([x], **{"l1": static, "l2": static, which: torch.tensor(value)}, backend=backend)
        assert x.isnan().all(), (static, x)


def test_a_bad_device_scalar_spoils_its_own_leaves_alone(backend: str) -> None:
    params = {"a": torch.tensor(START), "b": torch.tensor(START)}
    prox_(params, {"a": torch.tensor(-1.0), "b": torch.tensor(1.0)}, backend=backend)
    assert params["a"].isnan().all()
    assert params["b"].tolist() == [0.0, -1.0, 0.0]


def test_a_bad_learning_rate_makes_the_proximal_step_nan(backend: str) -> None:
    x = with_gradient()
    optimizer = torch.optim.SGD([x], lr=torch.tensor(0.0))
    attach(optimizer, 1.0, mode="prox", backend=backend)
    optimizer.param_groups[0]["lr"].fill_(-1.0)
    optimizer.step()
    assert x.isnan().all()


def test_good_device_scalars_at_the_edges(backend: str) -> None:
    for step in (0.0, -0.0):
        x = torch.tensor(START)
        prox_([x], 1.0, 1.0, step=torch.tensor(step), backend=backend)
        assert x.tolist() == START
