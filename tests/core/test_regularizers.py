"""`L1L2`, `L1`, `L2`: treex's constructor and values, Keras' manners."""

from __future__ import annotations

import enum
import json
import pickle
import re
from collections import OrderedDict, deque
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import fused_penalty as fp
from tests.support.frontends import Frontend

TREE = {
    "encoder": {"w": np.float32([1.0, -2.0]), "b": np.float32([0.5])},
    "layers": [np.float32([3.0]), np.float32([4.0])],
}


class Reduction(enum.Enum):  # treex's
    SUM = "sum"
    MEAN = "mean"


def treex_value(l1: float, l2: float, leaves: list[np.ndarray], weight: float = 1.0) -> float:
    """treex: l1 * sum(sum(abs(p))) + l2 * sum(sum(square(p))), times the weight."""
    return weight * sum(l1 * float(np.abs(p).sum()) + l2 * float(np.square(p).sum()) for p in leaves)


def test_one_object_serves_both_frameworks(frontend: Frontend) -> None:
    reg = fp.L1L2(l1=0.01, l2=0.1, weight=2.0, reduction=Reduction.SUM)
    leaves = [*TREE["encoder"].values(), *TREE["layers"]]
    params = frontend.to(TREE)
    assert float(reg(params)) == pytest.approx(treex_value(0.01, 0.1, leaves, 2.0), rel=1e-6)
    assert float(reg(parameters=params)) == float(reg(params))
    assert float(fp.L1(0.3)(params)) == pytest.approx(treex_value(0.3, 0, leaves), rel=1e-6)
    assert float(fp.L2(l=0.3)(params)) == pytest.approx(treex_value(0, 0.3, leaves), rel=1e-6)
    by_path = fp.L1L2(l1=fp.by_path({"encoder.*": 1.0, "*": 0.0}))
    assert float(by_path(params)) == 3.5


@pytest.mark.parametrize(
    ("on", "expected"), [("encoder", 3.5), (("encoder", "w"), 3.0), (["layers", 1], 4.0), ("layers", 7.0)]
)
def test_on_indexes_into_the_parameters(frontend: Frontend, on: Any, expected: float) -> None:
    assert float(fp.L1(1.0, on=on)(frontend.to(TREE))) == expected


FORMS: dict[str, Any] = {
    "values": lambda d: d.values(),
    "items": lambda d: d.items(),
    "deque": lambda d: deque(d.values()),
    "iterator": lambda d: iter(d.values()),
    "generator": lambda d: (x for x in d.values()),
    "ordered_values": lambda d: OrderedDict(d).values(),
    "proxy_items": lambda d: MappingProxyType(d).items(),
}


@pytest.mark.parametrize("form", FORMS)
def test_views_and_iterators_of_mappings(frontend: Frontend, form: str) -> None:
    params = frontend.to({"w": np.float32([1.0, -2.0]), "b": np.float32([0.5])})
    assert float(fp.L1(1.0)(FORMS[form](params))) == 3.5
    assert float(fp.L1(1.0)(FORMS[form]({}))) == 0.0
    assert float(fp.L1(1.0, on="a")({"a": FORMS[form](params)})) == 3.5
    if "items" not in form:
        ordered = {"w": params["w"], "b": params["b"]}  # jax.tree.map has sorted the keys
        assert float(fp.L1(1.0, on=0)(FORMS[form](ordered))) == 3.0


def test_items_keep_their_names(frontend: Frontend) -> None:
    params = frontend.to({"w": np.float32([1.0, -2.0]), "b": np.float32([0.5])})
    assert float(fp.L1(fp.by_path({"w": 1.0, "b": 0.0}))(params.items())) == 3.0


def test_without_jax_the_error_speaks_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TypeError, match=r"^parameters: .* holds no torch tensor, and JAX is not installed\. Give an"):
        fp.L1(0.1)({"w": 3.0})


def test_the_spelling_of_keras() -> None:
    assert fp.L1(l1=0.3) == fp.L1(0.3) == fp.L1(l=0.3)
    assert fp.L2(l2=0.3, name="decay") == fp.L2(0.3, name="decay")
    assert fp.L1(l1=None) == fp.L1()
    assert fp.L1.from_config({"l1": 0.3}) == fp.L1(0.3)
    rule = fp.by_path({"*": 1.0})
    assert fp.L1(l1=rule).l1 is rule
    with pytest.raises(TypeError, match="l and l1: two names of one strength"):
        fp.L1(0.1, l1=0.1)
    with pytest.raises(TypeError, match="l2"):
        fp.L1(l2=0.1)
    with pytest.raises(ValueError, match=r"argument l1: .*Received: l1=-1"):
        fp.L1(l1=-1)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.array(0.5), np.float16(0.5)])
def test_numbers_of_numpy(number: Any) -> None:
    reg = fp.L1L2(l1=number, weight=number)
    assert reg == fp.L1L2(l1=0.5, weight=0.5)
    assert type(reg.weight) is float
    assert fp.L1L2(weight=np.int64(2)).weight == 2.0


def test_on_reaches_into_modules_and_attributes() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    expected = float(model[1].weight.detach().abs().sum())
    assert float(fp.L1(1.0, on=(1, "weight"))(model).detach()) == pytest.approx(expected, rel=1e-6)
    assert float(fp.L1(1.0)(model[1].parameters()).detach()) == pytest.approx(
        expected + float(model[1].bias.detach().abs().sum()), rel=1e-6
    )
    with pytest.raises(TypeError, match="on: 0 cannot index"):
        fp.L1(on=0)(object())
    with pytest.raises(KeyError):
        fp.L1(on="missing")({"w": np.ones(2)})


def test_no_leaf_is_zero() -> None:
    for nothing in ({}, [], None, {"a": []}):
        found = fp.L1L2(1.0, 1.0)(nothing)
        assert found == 0.0
        assert isinstance(found, float)


def test_config_round_trip_equality_hash_pickle() -> None:
    for reg in (fp.L1L2(0.1, 0.2, "sum", 3.0, ["a", 0], "mine"), fp.L1(0.1, on="a"), fp.L2(name="x"), fp.L1L2()):
        twin = type(reg).from_config(reg.get_config())
        assert twin == reg
        assert hash(twin) == hash(reg)
        assert pickle.loads(pickle.dumps(reg)) == reg
    assert fp.L1(0.1) != fp.L2(0.1)
    assert fp.L1(0.1) != fp.L1L2(l1=0.1)
    assert fp.L1L2(0.1) != fp.L1L2(0.2)
    assert fp.L1(0.25).get_config() == {"l": 0.25, "reduction": None, "weight": None, "on": None, "name": "l1"}


def test_rules_in_a_config_are_plain_data() -> None:
    """JSON, but for rules that hold a function or types."""
    patterns = {"*.kernel": 0.1, re.compile("bias", re.IGNORECASE): 0.0}
    for rule in (fp.by_path(patterns, default=0.2), fp.no_decay_on_norms_and_biases(0.3, also=["*.table"])):
        for reg in (fp.L1L2(rule, 0.1, on=("a", 0)), fp.L2(rule)):
            assert type(reg).from_config(json.loads(json.dumps(reg.get_config()))) == reg
    by_leaf = fp.by_leaf(lambda path, leaf: 1.0)
    assert fp.L1(by_leaf).get_config()["l"] is by_leaf


def test_defaults_names_repr() -> None:
    assert (fp.L1().l1, fp.L1().l2, fp.L2().l2, fp.L1L2().l1, fp.L1L2(None).l1) == (0.01, 0.0, 0.01, 0.0, 0.0)
    assert (fp.L1L2().name, fp.L1().name, fp.L2().name) == ("l1_l2", "l1", "l2")
    assert repr(fp.L1L2(0.1, on="a")) == "L1L2(l1=0.1, l2=0.0, on=('a',))"
    assert repr(fp.L2(0.5, weight=2)) == "L2(l=0.5, weight=2.0)"
    reg: Any = fp.L1()
    with pytest.raises(AttributeError):
        reg.l1 = 3.0


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: fp.L1L2(l1=-0.1), ValueError, r"argument l1: expected a non-negative float\. Received: l1=-0\.1"),
        (lambda: fp.L1L2(l2=float("nan")), ValueError, r"argument l2: .*Received: l2=nan"),
        (lambda: fp.L1("a"), TypeError, r"argument l: .*Received: l='a'"),
        (lambda: fp.L1L2(l1=True), TypeError, r"Received: l1=True"),
        (lambda: fp.L2([0.1]), TypeError, r"Received: l=\[0\.1\]"),
        (lambda: fp.L1L2(reduction="mean"), ValueError, r"argument reduction: .*Received: reduction='mean'"),
        (lambda: fp.L1L2(reduction=Reduction.MEAN), ValueError, r"argument reduction"),
        (lambda: fp.L1L2(weight=float("inf")), ValueError, r"argument weight: .*Received: weight=inf"),
        (lambda: fp.L1L2(weight="2"), ValueError, r"argument weight"),
        (lambda: fp.L1L2(weight=True), ValueError, r"argument weight"),
        (lambda: fp.L1L2(weight=np.ones(2)), ValueError, r"argument weight"),
        (lambda: fp.L1L2(weight=10**400), ValueError, r"argument weight: .*Received: weight=a builtins\.int"),
        (lambda: fp.L1L2(l1=10**400), ValueError, r"argument l1: .*Received: l1=a builtins\.int"),
    ],
)  # fmt: skip
def test_validation(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()
