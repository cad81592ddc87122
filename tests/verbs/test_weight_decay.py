"""`weight_decay=` stands for l2 = weight_decay / 2 in every verb that takes l2, whatever form a strength has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fused_penalty as fp

RNG = np.random.default_rng(0)
W, B = RNG.standard_normal(300).astype(np.float32), RNG.standard_normal(7).astype(np.float32)
FORMS: dict[str, tuple[Any, Any]] = {  # (weight_decay, the l2 that it stands for)
    "number": (0.5, 0.25),
    "int": (1, 0.5),
    "tree": ({"w": 0.5, "b": 0.0}, {"w": 0.25, "b": 0.0}),
    "by_path": (fp.by_path({"b": 0.0, "*": 0.5}), fp.by_path({"b": 0.0, "*": 0.25})),
    "by_leaf": (fp.by_leaf(lambda path, x: 0.5 * (path == "w")), fp.by_leaf(lambda path, x: 0.25 * (path == "w"))),
}


def jax_verbs() -> dict[str, Any]:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    import fused_penalty.jax as fj

    params = {"w": jax.numpy.asarray(W), "b": jax.numpy.asarray(B)}
    verbs = {"penalty": fj.penalty, "penalty_and_grad": fj.penalty_and_grad, "prox": fj.prox}
    return {name: lambda verb=verb, **k: jax.tree.leaves(verb(params, 0.1, **k)) for name, verb in verbs.items()}


def torch_verbs() -> dict[str, Any]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import fused_penalty.torch as ft

    def called(verb: Any, **k: Any) -> list[Any]:
        params = {"w": torch.tensor(W, requires_grad=True), "b": torch.tensor(B, requires_grad=True)}
        with torch.no_grad():
            for x in params.values():
                x.grad = torch.ones_like(x)
        found = verb(params, 0.1, **k)
        value, grads = found if isinstance(found, tuple) else (found, {})
        rest = [*grads.values(), *params.values(), *(x.grad for x in params.values())]
        return [x.detach().numpy() for x in (value, *rest)]

    def attached(params: Any, l1: float, **k: Any) -> Any:
        optimizer = torch.optim.SGD(list(params.items()), lr=0.5)
        handle = ft.attach(optimizer, l1, **k)
        optimizer.step()
        return handle.penalty

    verbs = {
        "penalty": ft.penalty, "penalty_and_grad": ft.penalty_and_grad, "add_grad_": ft.add_grad_, "prox_": ft.prox_,
        "attach": attached,
    }  # fmt: skip
    return {name: lambda verb=verb, **k: called(verb, **k) for name, verb in verbs.items()}


VERBS = [("jax", v) for v in ("penalty", "penalty_and_grad", "prox")]
VERBS += [("torch", v) for v in ("penalty", "penalty_and_grad", "add_grad_", "prox_", "attach")]


@pytest.mark.parametrize(("framework", "name"), VERBS)
def test_half_of_it_is_l2(framework: str, name: str) -> None:
    verb = (jax_verbs if framework == "jax" else torch_verbs)()[name]
    for form, (decay, l2) in FORMS.items():
        if name == "attach" and form == "tree":  # its parameters are a list
            continue
        for x, y in zip(verb(weight_decay=decay), verb(l2=l2), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=form)


@pytest.mark.parametrize(("framework", "name"), VERBS)
def test_what_is_refused(framework: str, name: str) -> None:
    verb = (jax_verbs if framework == "jax" else torch_verbs)()[name]
    with pytest.raises(ValueError, match="weight_decay: it is given beside l2"):
        verb(weight_decay=0.1, l2=0.1)
    with pytest.raises(ValueError, match=r"weight_decay: the strength -1"):
        verb(weight_decay=-1.0)
    with pytest.raises(TypeError, match="weight_decay: 'much' is not a strength"):
        verb(weight_decay="much")
    verb(weight_decay=0.1, l2=0.0)


def test_device_scalars() -> None:
    """They are halved on the device, and have derivatives."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from fused_penalty.jax import penalty

    slope = jax.grad(lambda decay: penalty([jax.numpy.asarray(W)], weight_decay=decay))(0.5)
    np.testing.assert_allclose(slope, np.sum(W.astype(np.float64) ** 2) / 2, rtol=1e-6)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import fused_penalty.torch as ft

    decay = torch.tensor(0.5, requires_grad=True)
    ft.penalty([torch.tensor(W)], weight_decay=decay).backward()
    np.testing.assert_allclose(decay.grad, np.sum(W.astype(np.float64) ** 2) / 2, rtol=1e-6)
    w = torch.nn.Parameter(torch.tensor(W))
    with pytest.raises(TypeError, match="weight_decay: a tensor, half of which would not change with it"):
        ft.attach(torch.optim.SGD([w], lr=0.1), weight_decay=decay.detach())
