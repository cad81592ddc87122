"""What pairs with what: anchors by name, positions only between lists, one path for one leaf."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn

import fused_penalty as fp
import fused_penalty.torch as verbs
from fused_penalty.torch import penalty, penalty_and_grad, prox_, sums


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape)


def number(value: Tensor) -> float:
    return float(value.detach())


class BatchNormed(nn.Module):
    """Two layers of equal shapes, tied weights, and buffers that are not parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.embed.weight


def anchored(model: nn.Module) -> nn.Module:
    """Another model of the same names; each parameter differs from the model's by a distance of its own."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for k, p in enumerate(other.parameters()):
            p += 2.0**k
    return other


def distance(model: nn.Module) -> float:
    return sum(2.0**k * p.numel() for k, p in enumerate(model.parameters()))


DUPLICATES: list[Callable[[], Any]] = [
    lambda: {"a.b": ones(1), "a": {"b": ones(10)}},
    lambda: {"a": {"b": ones(10)}, "a.b": ones(1)},
    lambda: {"a": {"b": {1: ones(1)}, "b.1": ones(2)}},
    lambda: {"a": [ones(1)], "a.0": ones(2)},
    lambda: [("a.b", ones(1)), ("a.b", ones(10))],
]


@pytest.mark.parametrize("verb", ["penalty", "penalty_and_grad", "sums", "stats", "prox_", "add_grad_", "regularize_"])
@pytest.mark.parametrize("k", range(len(DUPLICATES)))
def test_two_leaves_of_one_path_are_an_error(k: int, verb: str) -> None:
    path = "a.b.1" if k == 2 else "a.0" if k == 3 else "a.b"
    with pytest.raises(ValueError, match=rf"^params: two leaves have the path '{path}'\. Rename one"):
        getattr(verbs, verb)(DUPLICATES[k]())


def test_equal_keys_of_other_types_collide() -> None:
    with pytest.raises(ValueError, match=r"params: two leaves have the path '1'"):
        penalty({1: ones(1), "1": ones(10)}, 1.0)


@pytest.mark.parametrize("argument", ["l1", "l2", "mask", "anchor"])
def test_two_entries_of_one_path_are_an_error(argument: str) -> None:
    entries: dict[str, tuple[Any, Any]] = {"mask": (True, False), "anchor": (ones(2), ones(2))}
    one, two = entries.get(argument, (1.0, 100.0))
    with pytest.raises(ValueError, match=rf"^{argument}: two leaves have the path 'a\.b'"):
        penalty({"a": {"b": ones(2)}}, **{argument: {"a.b": one, "a": {"b": two}}})
    with pytest.raises(ValueError, match=r"^anchor: two leaves have the path 'w'"):
        penalty({"w": ones(2)}, 1.0, anchor=[("w", ones(2)), ("w", ones(2))])


@pytest.mark.parametrize("clone", ["deepcopy", "cloned"])
@pytest.mark.parametrize("order", ["same", "reversed"])
def test_an_anchor_may_be_a_state_dict(clone: str, order: str) -> None:
    model = BatchNormed()
    state = anchored(model).state_dict()
    state = copy.deepcopy(state) if clone == "deepcopy" else {k: v.clone() for k, v in state.items()}
    if order == "reversed":
        state = dict(reversed(state.items()))
    for form in (model, dict(model.named_parameters()), list(model.named_parameters())):
        assert number(penalty(form, 1.0, anchor=state)) == pytest.approx(distance(model), rel=1e-6)
    every = dict(model.named_parameters(remove_duplicate=False))
    assert number(penalty(every, 1.0, anchor=state)) == pytest.approx(distance(model), rel=1e-6)


def test_module_pairs_with_module_by_name() -> None:
    """The order of registration differs, the shapes do not tell."""
    a, b = nn.Module(), nn.Module()
    for module, names in ((a, "xyz"), (b, "zxy")):
        for name in names:
            module.register_parameter(name, nn.Parameter(torch.full((3,), float("xyz".index(name)))))
    assert number(penalty(a, 1.0, anchor=b)) == 0.0
    value, grads = penalty_and_grad(a, 1.0, anchor=b)
    assert float(value) == 0.0
    assert all(not g.any() for g in grads.values())


def test_tied_weights_under_another_first_name() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)  # the first name of the tied weight is now "head.weight"
            self.embed = nn.Embedding(4, 4)
            self.norm = nn.BatchNorm1d(4)
            self.embed.weight = self.head.weight

    model, other = BatchNormed(), Other()
    other.load_state_dict(model.state_dict())
    for anchor in (other, dict(other.named_parameters()), list(other.named_parameters())):
        assert number(penalty(model, 1.0, anchor=anchor)) == 0.0
    assert number(penalty(dict(model.named_parameters(remove_duplicate=False)), 1.0, anchor=other)) == 0.0


def test_a_missing_name_is_named() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    state = {k: v.clone() for k, v in model.state_dict().items() if k.endswith("weight")}
    with pytest.raises(ValueError, match=r"anchor: it has no entry for 4 of 8 leaves: '0\.bias', '1\.bias', '2\.bias', "
                                         r"\.\.\.; its names look like '0\.weight'.*mask="):  # fmt: skip
        penalty(model, 1.0, anchor=state)
    mask = {name: name in state for name, _ in model.named_parameters()}
    assert number(penalty(model, 1.0, mask=mask, anchor=state)) == 0.0  # only selected leaves need an entry
    with pytest.raises(ValueError, match=r"no entry for 1 of 2 leaves: 'b'; its names look like 'a'\."):
        penalty({"a": ones(1), "b": ones(1)}, 1.0, anchor={"a": ones(1), "c": None})


def test_an_entry_of_the_wrong_kind_is_the_anchors() -> None:
    with pytest.raises(TypeError, match=r"^anchor at 'w': 3\.0 is not a torch tensor"):
        penalty({"w": ones(2)}, 1.0, anchor={"w": 3.0, "extra": "ignored"})
    with pytest.raises(TypeError, match=r"^anchor at 'w': a meta tensor"):
        penalty({"w": ones(2)}, 1.0, anchor={"w": torch.ones(2, device="meta")})
    with pytest.raises(ValueError, match=r"^anchor at 'w': .*float64.*beside a leaf of .*float32"):
        penalty({"w": ones(2)}, 1.0, anchor={"w": ones(2).double()})


def test_a_list_never_pairs_with_names_by_luck() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other = copy.deepcopy(model)
    grouped = [p for p in model.parameters() if p.ndim > 1] + [p for p in model.parameters() if p.ndim == 1]
    for anchor in (other, other.state_dict(), list(other.named_parameters())):
        for params in (grouped, list(model.parameters())):
            with pytest.raises(ValueError, match=r"^anchor: it has names and params have none.*named_parameters\(\)"):
                penalty(params, 1.0, anchor=anchor)
    with pytest.raises(ValueError, match=r"^anchor: params have names and it has none.*named_parameters\(\)"):
        penalty(model, 1.0, anchor=[p.detach().clone() for p in model.parameters()])


def test_the_modules_own_parameters_pair_by_identity() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert number(penalty(list(reversed(list(model.parameters()))), 1.0, anchor=model)) == 0.0


def test_lists_pair_by_position_and_one_leaf_with_one() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 5.0])
    assert number(penalty([a, b], 1.0, anchor=[b, a])) == 14.0
    with pytest.raises(ValueError, match=r"^anchor: 1 tensor beside 2 leaves"):
        penalty([a, b], 1.0, anchor=[a])
    for params in (a, [a], {"w": a}, [("w", a)]):
        for anchor in (b, [b]):
            assert number(penalty(params, 1.0, anchor=anchor)) == 7.0
    assert number(penalty([a], 1.0, anchor={"any": b})) == 7.0
    with pytest.raises(ValueError, match="no entry for 1 of 1 leaves: 'w'"):
        penalty({"w": a}, 1.0, anchor={"v": b})


def test_the_in_place_verbs_pair_by_name() -> None:
    model = BatchNormed()
    state = dict(reversed(copy.deepcopy(model.state_dict()).items()))
    before = copy.deepcopy(model)
    prox_(model, 0.1, 0.1, anchor=state)
    for p, q in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert sums(model, anchor=state).abs.sum() < 1e-5


def test_pairing_under_compile() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    state = {k: v + 1 for k, v in reversed(model.state_dict().items())}
    compiled = torch.compile(lambda: penalty(model, 1.0, anchor=state), fullgraph=True, backend="aot_eager")
    assert number(compiled()) == pytest.approx(24.0, rel=1e-6)


def test_attach_pairs_groups_in_another_order_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    start = copy.deepcopy(model)
    split = [[(n, p) for n, p in model.named_parameters() if (p.ndim > 1) is big] for big in (True, False)]
    for anchor in (start, start.state_dict()):
        optimizer = torch.optim.SGD([{"params": group} for group in split], lr=0.1)
        handle = verbs.attach(optimizer, l1=1.0, anchor=anchor)
        model(torch.ones(2, 3)).sum().mul(0).backward()
        optimizer.step()
        assert handle.penalty is not None
        assert float(handle.penalty) == 0.0
    unnamed = torch.optim.SGD([{"params": [p for _, p in group]} for group in split], lr=0.1)
    with pytest.raises(ValueError, match=r"^anchor: it has names, .*model\.named_parameters\(\)"):
        verbs.attach(unnamed, l1=1.0, anchor=start)


def test_attach_to_two_modules_of_the_same_names() -> None:
    """torch lets an optimizer have them, and nothing needs them."""
    modules = [nn.Linear(3, 3), nn.Linear(3, 3)]
    optimizer = torch.optim.SGD([pair for m in modules for pair in m.named_parameters()], lr=0.1)
    before = [p.detach().clone() for m in modules for p in m.parameters()]
    handle = verbs.attach(optimizer, l1=1.0)
    sum(m(torch.ones(2, 3)).sum() * 0 for m in modules).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert handle.penalty is not None
    assert float(handle.penalty) == pytest.approx(sum(float(p.abs().sum()) for p in before), rel=1e-6)
    handle.remove()
    with pytest.raises(ValueError, match="by_path needs the parameters' names"):
        verbs.attach(optimizer, l1=fp.by_path({"*": 1.0}))
    start = copy.deepcopy(modules[0])
    with pytest.raises(ValueError, match=r"^anchor: it has names, "):
        verbs.attach(optimizer, l1=1.0, anchor=start)
