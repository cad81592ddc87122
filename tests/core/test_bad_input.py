"""Every bad input is a clear error that names argument, leaf, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fused_penalty as fp
from tests.support.frontends import Frontend, on_cpu

GOOD = {"w": np.ones(3, np.float32), "b": np.ones(2, np.float32)}
VERBS = ["penalty", "penalty_and_grad"]


def call(frontend: Frontend, verb: str, params: Any = None, *args: Any, **kw: Any) -> Any:
    params = frontend.to(GOOD) if params is None else params
    kw.setdefault("backend", frontend.backend)
    return getattr(frontend.verbs, verb)(params, *args, **kw)


STRENGTHS: list[tuple[Any, type[Exception], str]] = [
    (-1.0, ValueError, r"l1: the strength -1\.0\. Use a finite float >= 0"),
    (float("nan"), ValueError, r"l1: the strength nan"),
    (float("inf"), ValueError, r"l1: the strength inf"),
    (np.float32(-2), ValueError, r"l1: the strength -2\.0"),
    (True, TypeError, r"l1: True is not a strength"),
    (np.bool_(True), TypeError, r"l1: True is not a strength"),
    ("0.1", TypeError, r"l1: '0\.1' is not a strength"),
    (None, TypeError, r"l1: None is not a strength"),
    (1j, TypeError, r"l1: 1j is not a strength"),
    (np.ones(2), ValueError, r"l1: an array of shape \(2,\)\. A strength is a scalar"),
    (lambda path, leaf: 0.1, TypeError, r"l1: .* is not a strength\..*by_leaf"),
    (10**400, ValueError, r"l1: the strength inf\. Use a finite float"),
    (-(10**400), ValueError, r"l1: the strength -inf"),
    (np.longdouble("1e4000"), ValueError, r"l1: the strength inf"),
    ({"w": 0.1, "b": 10**5000}, ValueError, r"l1 at 'b': the strength inf"),
    ([10**5000], (ValueError, TypeError), r"l1.*: "),
    ({"w": 0.1, "b": -1.0}, ValueError, r"l1 at 'b': the strength -1\.0"),
    ({"w": 0.1, "b": True}, TypeError, r"l1 at 'b': True is not a strength"),
    ({"w": 0.1}, ValueError, r"l1.*: its tree"),
    ({"w": 0.1, "b": 0.1, "c": 0.1}, ValueError, r"l1: its"),
    (fp.by_path({"w": 0.1}), ValueError, r"l1 at 'b': no pattern of by_path matches this leaf"),
    (fp.by_path({"*": 0.1, "w": 0.2}), ValueError, r"l1: by_path pattern 'w' is the first match of no leaf"),
    (fp.by_path({"kernel": 0.3, "*": 0.1}), ValueError, r"pattern 'kernel' .*paths look like '[wb]'"),
    (fp.by_path({"w": -0.1, "*": 0.1}), ValueError, r"l1 at 'w': the strength -0\.1"),
    (fp.by_leaf(lambda path, leaf: "x"), TypeError, r"l1 at '[wb]': 'x' is not a strength"),
]


@pytest.mark.parametrize(("strength", "kind", "message"), STRENGTHS)
@pytest.mark.parametrize("verb", VERBS)
def test_strength(frontend: Frontend, verb: str, strength: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(frontend, verb, None, strength)


@pytest.mark.parametrize("backend", [[], (), 0, False, b"cpu", 3.0, ["cpu"], ""])
@pytest.mark.parametrize("verb", [*VERBS, "sums", "stats"])
def test_a_backend_is_a_name(frontend: Frontend, verb: str, backend: Any) -> None:
    kind, message = (ValueError, "'' is unknown") if backend == "" else (TypeError, r"is not a name\. Use a str")
    with pytest.raises(kind, match=rf"^backend: .*{message}"):
        call(frontend, verb, backend=backend)


@pytest.mark.parametrize("create", ["no", 0, 1, None, [], np.int64(1)])
def test_create_is_a_bool(create: Any) -> None:
    pytest.importorskip("torch")
    from fused_penalty.torch import add_grad_

    with pytest.raises(TypeError, match=r"^create: .* is not a bool\. Use True or False"):
        add_grad_([], 0.1, create=create)


def nest(kind: str, leaf: Any) -> Any:
    tree = leaf
    for _ in range(10_000):
        tree = {"a": tree} if kind == "dict" else [tree] if kind == "list" else (tree,)
    return tree


def cycle(kind: str) -> Any:
    tree: Any = {} if kind == "dict" else []
    inner = tree if kind == "dict" else {"b": tree}
    if kind == "dict":
        tree["a"] = [inner]
    else:
        tree.append(inner)
    return tree


@pytest.mark.parametrize("argument", ["params", "l1", "l2", "mask", "anchor"])
@pytest.mark.parametrize("kind", ["dict", "list", "tuple"])
def test_containers_nested_too_deep(frontend: Frontend, kind: str, argument: str) -> None:
    leaf = {"params": frontend.to(GOOD)["w"], "mask": True, "anchor": frontend.to(GOOD)["w"]}.get(argument, 0.1)
    tree = {"w": nest(kind, leaf), "b": leaf}
    message = rf"^{argument}: containers nested more than 1,000 deep"
    if argument == "params":
        for verb in (*VERBS, "sums", "stats"):
            with pytest.raises(ValueError, match=message):
                call(frontend, verb, tree)
        with pytest.raises(ValueError, match=r"^parameters: containers nested|^params: containers nested"):
            fp.L1(0.1)(tree)
    else:
        with pytest.raises(ValueError, match=message):
            call(frontend, "penalty", **{argument: tree})


@pytest.mark.parametrize("argument", ["params", "l1", "l2", "mask", "anchor"])
@pytest.mark.parametrize("kind", ["dict", "list"])
def test_containers_that_hold_themselves(frontend: Frontend, kind: str, argument: str) -> None:
    tree = {"w": cycle(kind), "b": frontend.to(GOOD)["b"]}
    with pytest.raises(ValueError, match=rf"^{argument}: a container that holds itself"):
        call(frontend, "penalty", **{argument: tree})
    with pytest.raises(ValueError, match=r"^(params|parameters): a container that holds itself"):
        fp.L1(0.1)(tree)


def test_containers_of_moderate_depth_are_read(frontend: Frontend) -> None:
    tree = frontend.to(GOOD)["w"]
    for k in range(300):
        tree = {"a": tree} if k % 2 else [tree]
    assert float(call(frontend, "penalty", {"x": tree}, 1.0)) == 3.0


def test_a_list_in_a_list_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    from fused_penalty.torch import penalty

    for inner in (nest("list", torch.ones(1)), cycle("list")):
        with pytest.raises(TypeError, match=r"params at '1': .* is not a torch tensor"):
            penalty([torch.ones(1), inner], 0.1)


def test_second_strength_is_named(frontend: Frontend) -> None:
    with pytest.raises(ValueError, match=r"^l2: the strength -1\.0"):
        call(frontend, "penalty", None, 0.1, -1.0)


def test_array_strength_of_the_framework(frontend: Frontend) -> None:
    with pytest.raises(ValueError, match=r"l1: an array of shape \(2,\)"):
        call(frontend, "penalty", None, frontend.to(np.ones(2, np.float32)))
    with pytest.raises(TypeError, match=r"l1: an array of dtype .*bool"):
        call(frontend, "penalty", None, frontend.to(np.array(True)))


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64])
@pytest.mark.parametrize("verb", [*VERBS, "sums"])
def test_leaf_dtype(frontend: Frontend, verb: str, dtype: Any) -> None:
    params = frontend.to({"w": np.ones(3, np.float32), "deep": {"step": np.ones(2, dtype)}})
    name = np.dtype(dtype).name
    with pytest.raises(TypeError, match=rf"params at 'deep\.step': a leaf of dtype .*{name}.*mask="):
        call(frontend, verb, params)


def test_leaf_that_is_no_array(frontend: Frontend) -> None:
    with pytest.raises(TypeError, match=r"params at '1': .*is not a .*mask=") as caught:
        call(frontend, "penalty", [frontend.to(GOOD)["w"], print], 0.1)
    assert ("equinox.filter" in str(caught.value)) == (frontend.framework == "jax")
    with pytest.raises(TypeError, match=r"params at '0': 'text' is not"):
        call(frontend, "penalty", ["text"], 0.1)


MASKS: list[tuple[Any, type[Exception], str]] = [
    ({"w": 1, "b": True}, TypeError, r"mask at 'w': 1 is not a static bool"),
    ("w", TypeError, r"mask.*'w' is not a static bool"),
    ({"w": True}, ValueError, r"mask.*: its tree"),
    ({"w": True, "b": True, "x": False}, ValueError, r"mask: its"),
    (lambda params: {"w": True, "b": 0.0}, TypeError, r"mask at 'b': 0\.0 is not a static bool"),
]


@pytest.mark.parametrize(("mask", "kind", "message"), MASKS)
@pytest.mark.parametrize("verb", [*VERBS, "sums"])
def test_mask(frontend: Frontend, verb: str, mask: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(frontend, verb, mask=mask)


ANCHORS: list[tuple[Callable[[], Any], str]] = [
    (lambda: {"w": np.ones(3, np.float32)}, r"anchor"),
    (lambda: {"w": np.ones(3, np.float32), "b": np.ones(5, np.float32)}, r"anchor at 'b': .*5.*beside.*2"),
    (lambda: {"w": np.ones(3, np.float16), "b": np.ones(2, np.float32)}, r"anchor at 'w': .*float16.*float32"),
]


@pytest.mark.parametrize(("anchor", "message"), ANCHORS)
def test_anchor(frontend: Frontend, anchor: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(frontend, "penalty", None, 0.1, anchor=frontend.to(anchor()))


def test_unknown_backend(frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=rf"backend: 'gpu' is unknown for {frontend.framework}\. Use one of .*'cpu'"):
        call(frontend, "penalty", backend="gpu")
    monkeypatch.setenv("FUSED_PENALTY_BACKEND", "nonsense")
    with pytest.raises(ValueError, match="'nonsense' is unknown"):
        call(frontend, "penalty", backend=None)


def test_environment_sets_the_default(frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_PENALTY_BACKEND", frontend.backend)
    assert float(call(frontend, "penalty", None, 1.0, backend=None)) == 5.0


def test_unavailable_backend_raises_with_the_reason(monkeypatch: pytest.MonkeyPatch, frontend: Frontend) -> None:
    from fused_penalty._core import backends as _backends

    def load() -> Any:
        raise ImportError("no such device")

    row = _backends.Backend("absent", frontend.framework, ("cpu",), load)
    monkeypatch.setattr(_backends, "BACKENDS", (row, *_backends.BACKENDS))
    with pytest.raises(RuntimeError, match=r"'absent' is not available for .*: no such device"):
        call(frontend, "penalty", backend="absent")
    assert float(call(frontend, "penalty", None, 1.0, backend=None)) == 5.0  # the default passes over it
    assert ("absent", frontend.framework, "cpu", False, "no such device") in fp.backends().rows
    assert "no such device" in str(fp.backends())


def test_rule_constructors() -> None:
    with pytest.raises(TypeError, match="by_path"):
        fp.by_path([("*", 1)])
    with pytest.raises(TypeError, match="by_leaf"):
        fp.by_leaf(3)


class TestFrameworks:
    """Arrays of one framework given to the other; tensors that no kernel can read; traced masks."""

    jax = pytest.importorskip("jax")
    torch = pytest.importorskip("torch")

    def test_torch_tensor_given_to_jax(self) -> None:
        from fused_penalty.jax import penalty

        with pytest.raises(TypeError, match=r"params at 'w': .*is not a JAX array.*"):
            penalty({"w": self.torch.ones(2)}, 0.1)
        with pytest.raises(TypeError, match=r"l1: .* is not a strength"):
            penalty({"w": self.jax.numpy.ones(2)}, self.torch.tensor(0.1))

    def test_jax_array_given_to_torch(self) -> None:
        from fused_penalty.torch import penalty

        for array in (self.jax.numpy.ones(2), np.ones(2)):
            with pytest.raises(TypeError, match=r"params at 'w': .*is not a torch tensor\. .*torch\.as_tensor\(x\)"):
                penalty({"w": array}, 0.1)
        optimizer = self.torch.optim.SGD([self.torch.ones(2)], lr=0.1)
        with pytest.raises(TypeError, match=r"params at 'lr': 0\.1 is not a torch tensor.*group\['params'\]"):
            penalty(optimizer.param_groups[0], 0.1)
        with pytest.raises(TypeError, match=r"l1: .* is not a strength"):
            penalty({"w": self.torch.ones(2)}, self.jax.numpy.float32(0.1))
        with pytest.raises(TypeError, match="holds no parameters"):
            penalty(3.0, 0.1)

    def test_traced_mask(self) -> None:
        from fused_penalty.jax import penalty

        jnp = self.jax.numpy
        with pytest.raises(TypeError, match=r"mask at 'w': .* is not a static bool.*traced"):
            self.jax.jit(lambda m: penalty({"w": jnp.ones(2)}, 0.1, mask={"w": m}))(True)

    def test_jax_errors_surface_under_jit(self) -> None:
        from fused_penalty.jax import penalty

        with pytest.raises(TypeError, match="params at 'step'"):
            self.jax.jit(lambda p: penalty(p, 0.1))({"step": self.jax.numpy.int32(1)})
        with pytest.raises(TypeError, match=r"params at '0': a leaf of dtype key"):
            penalty([self.jax.random.key(0)], 0.1)

    @pytest.mark.parametrize("verb", [*VERBS, "sums"])
    @pytest.mark.parametrize("kind", ["sparse", "meta", "quantized", "nested"])
    @pytest.mark.parametrize("backend", on_cpu("torch"))
    def test_tensor_without_dense_memory(self, verb: str, kind: str, backend: str) -> None:
        torch = self.torch
        import warnings

        import fused_penalty.torch as verbs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its prototypes
            bad = {
                "sparse": lambda: torch.ones(3).to_sparse(),
                "meta": lambda: torch.empty(3, device="meta"),
                "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
                "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            }[kind]()
            with pytest.raises(TypeError, match=rf"params at 'w': a {kind}.* no dense memory.*mask="):
                getattr(verbs, verb)({"w": bad}, backend=backend)

    def test_backend_of_another_device(self) -> None:
        from fused_penalty._core import backends as _backends

        with pytest.raises(ValueError, match=r"backend: 'cpu' runs on cpu, not on cuda"):
            _backends.choose("torch", "cpu", "cuda")
