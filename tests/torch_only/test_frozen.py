"""`frozen=`: whether parameters that do not learn count."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import nn

import fused_penalty as fp
import fused_penalty.torch as verbs

STRONG = ["penalty", "penalty_and_grad", "prox_", "add_grad_", "regularize_"]
VERBS = [*STRONG, "sums", "stats"]


def adapted() -> Any:
    """A frozen base and a head that learns."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def of(verb: str, params: Any, **kw: Any) -> Any:
    """What the verb finds, as numbers: a penalty, or the sums."""
    strengths = {"l1": 0.1, "l2": 0.2} if verb in STRONG else {}
    found = getattr(verbs, verb)(params, **strengths, **kw)
    found = found[0] if verb == "penalty_and_grad" else found.abs if verb in ("sums", "stats") else found
    return found.detach().numpy()


@pytest.mark.parametrize("verb", VERBS)
def test_skip_is_the_penalty_of_what_learns(verb: str) -> None:
    model = adapted()
    head, everything = of(verb, copy.deepcopy(model[1])), of(verb, list(copy.deepcopy(model).parameters()))
    np.testing.assert_array_equal(of(verb, copy.deepcopy(model), frozen="skip"), head)
    np.testing.assert_array_equal(of(verb, list(copy.deepcopy(model).parameters()), frozen="skip"), head)
    np.testing.assert_array_equal(of(verb, copy.deepcopy(model), frozen="count"), everything)
    np.testing.assert_array_equal(of(verb, copy.deepcopy(model)), everything)
    assert everything.sum() > head.sum()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("value", ["none", "", True, None, ["skip"], torch.tensor([1.0, 2.0])])
def test_other_values_are_refused(verb: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r'^frozen: .* is unknown\. Use "count".*or "skip"'):
        of(verb, adapted(), frozen=value)


def test_it_joins_with_a_mask_and_with_rules() -> None:
    model = adapted()
    mask = {"0": True, "1.weight": True, "1.bias": False}
    assert verbs.sums(model, mask=mask, frozen="skip").paths == ("1.weight",)
    rule = fp.by_path({"0.*": 7.0, "1.*": 1.0})  # a pattern that meets only skipped leaves is used
    expected = float(sum(p.detach().abs().sum() for p in model[1].parameters()))
    assert float(verbs.penalty(model, rule, frozen="skip").detach()) == pytest.approx(expected, rel=1e-6)
    seen: list[str] = []
    verbs.penalty(model, fp.by_leaf(lambda path, leaf: seen.append(path) or 0.1), frozen="skip")
    assert seen == ["1.weight", "1.bias"]
    anchor = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("1")}
    assert float(verbs.penalty(model, 1.0, anchor=anchor, frozen="skip").detach()) == 0.0


def test_gradients_of_skipped_parameters_are_none() -> None:
    model = adapted()
    _, grads = verbs.penalty_and_grad(model, 0.1, frozen="skip")
    assert [k for k, g in grads.items() if g is None] == ["0.weight", "0.bias"]


def test_only_parameters_can_be_frozen() -> None:
    """A plain tensor requires no grad either, and counts."""
    x = torch.ones(3)
    buffered = nn.Linear(2, 2)
    buffered.register_buffer("b", x)
    assert float(verbs.penalty([x], 1.0, frozen="skip")) == 3.0
    assert float(verbs.penalty({"x": x, "step": 3}, 1.0, mask={"x": True, "step": False}, frozen="skip")) == 3.0
    assert float(verbs.penalty(adapted()[0], 1.0, frozen="skip")) == 0.0


def test_under_compile() -> None:
    model = adapted()
    compiled = torch.compile(lambda: verbs.penalty(model, 0.1, frozen="skip"), fullgraph=True, backend="aot_eager")
    expected = 0.1 * float(sum(p.detach().abs().sum() for p in model[1].parameters()))
    assert float(compiled().detach()) == pytest.approx(expected, rel=1e-6)
