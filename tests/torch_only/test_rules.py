"""Rules that look at modules, and optimizers that learn names from their model."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import fused_penalty as fp
import fused_penalty.torch as fp_torch
from fused_penalty.torch import attach, optim, regularize_


def penalty(*args: Any, **kw: Any) -> torch.Tensor:
    return fp_torch.penalty(*args, **kw).detach()


class LlamaRMSNorm(nn.Module):
    """A norm by its name alone, of two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 2))


class PreNorm(nn.Module):
    """No norm, though its name ends like one's: what it holds is inside other modules."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm((2, 2)), inner


def network() -> nn.Module:
    model = nn.Sequential(
        PreNorm(nn.Linear(2, 2)), nn.BatchNorm1d(2), LlamaRMSNorm(), nn.Embedding(3, 2), nn.MultiheadAttention(2, 1)
    )
    for p in model.parameters():
        nn.init.ones_(p)
    return model


DECAYED = {"0.inner.weight", "3.weight", "4.in_proj_weight", "4.out_proj.weight"}


def selected(params: Any, rule: Any) -> set[str]:
    named = dict(params.named_parameters()) if isinstance(params, nn.Module) else dict(params)
    before = {n: p.detach().clone() for n, p in named.items()}
    regularize_(params, 0.5, mask=rule)
    return {n for n, p in named.items() if not torch.equal(p, before[n])}


def test_no_decay_from_the_model() -> None:
    assert selected(network(), fp.no_decay_on_norms_and_biases()) == DECAYED
    model = nn.ModuleDict({"norm": nn.Linear(2, 2)})  # the class knows better than the name
    assert selected(model, fp.no_decay_on_norms_and_biases()) == {"norm.weight"}


def test_no_decay_from_the_names() -> None:
    """Names do not tell that module 2 is a norm."""
    model = network()
    assert selected(list(model.named_parameters()), fp.no_decay_on_norms_and_biases()) == DECAYED | {"2.scale"}
    with pytest.raises(ValueError, match=r"^mask: no_decay_on_norms_and_biases needs names, and params have none"):
        penalty(list(model.parameters()), 1.0, mask=fp.no_decay_on_norms_and_biases())


def test_no_decay_as_transformers_and_timm() -> None:
    """On a transformer without 2-d norms all helpers agree: transformers' by types and names, timm's by dimensions."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 1, 8), 2, enable_nested_tensor=False)
    names = dict(model.named_parameters())
    timm = {n for n, p in names.items() if p.ndim > 1 and not n.endswith(".bias")}
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    transformers = {n for n in names if "bias" not in n and n.rpartition(".")[0] not in norms}
    assert selected(model, fp.no_decay_on_norms_and_biases()) == timm == transformers


def test_by_type() -> None:
    model = network()
    rule = fp.by_type({nn.Linear: 10.0, PreNorm: 1.0}, default=0.0)  # the innermost decides
    assert float(penalty(model, rule)) == 10 * (4 + 2 + 4 + 2) + 1 * 8  # also attention's out_proj, a subclass
    assert float(penalty(model, 1.0, mask=fp.by_type({nn.Embedding: True}, default=False))) == 6
    with pytest.raises(ValueError, match=r"^l1 at '1\.weight': .* in Sequential > BatchNorm1d, of which by_type knows"):
        penalty(model, fp.by_type({PreNorm: 1.0}))
    for params in (list(model.parameters()), dict(model.named_parameters())):
        with pytest.raises(ValueError, match=r"^l1: by_type needs the modules of the leaves.*model="):
            penalty(params, fp.by_type({nn.Linear: 1.0}, default=0.0))


def test_names_of_wrapped_models() -> None:
    """Rules, trees and anchors may have the names of the model, wrapped or not."""
    model = network()
    rule, tree = fp.by_path({"0.inner.*": 1.0}, default=0.0), {"0.inner": 1.0, **dict.fromkeys(("0", *"1234"), 0.0)}
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for wrapped in (torch.compile(model, backend="eager"), nn.DataParallel(model), averaged):
        for strengths in (rule, tree):
            assert float(penalty(wrapped, strengths)) == float(penalty(model, strengths)) == 6
        for a, b in ((model, wrapped), (wrapped, model), (wrapped, model.state_dict()), (averaged, wrapped)):
            assert float(penalty(a, 1.0, anchor=b)) == 0


def test_rules_under_compile() -> None:
    import re

    model, strength = network(), torch.tensor(2.0)
    torch._dynamo.reset()
    rules = (
        fp.no_decay_on_norms_and_biases(strength),
        fp.by_type({nn.LayerNorm: 0.0}, default=strength),
        fp.by_path({re.compile("bias"): 0.0}, default=strength),
    )
    for rule in rules:
        f = torch.compile(lambda m, rule=rule: penalty(m, rule), backend="eager", fullgraph=True)
        assert float(f(model)) == float(penalty(model, rule)) > 0


RULES = {
    "by_path": fp.by_path({"0.inner.*": 1.0}, default=0.0),
    "by_type": fp.by_type({nn.Linear: 1.0}, default=0.0),
    "no_decay": fp.no_decay_on_norms_and_biases(1.0),
}


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    """In another order than the model's."""
    params = list(model.parameters())
    return [{"params": params[5:]}, {"params": params[:5], "lr": 0.2}]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ours", [False, True])
def test_an_optimizer_learns_names_from_its_model(rule: str, ours: bool) -> None:
    model = network()
    if ours:
        optimizer: Any = optim.SGD(groups_of(model), lr=0.1, l1=RULES[rule], model=model)
    else:
        optimizer = torch.optim.SGD(groups_of(model), lr=0.1)
        attach(optimizer, RULES[rule], mode="prox", model=model)
    expected = float(penalty(model, RULES[rule]))
    copied = copy.deepcopy(optimizer)
    for o in (optimizer, copied):
        for p in (p for g in o.param_groups for p in g["params"]):
            p.grad = torch.zeros_like(p)
        o.step()
        assert float(o.penalty if ours else o.fused_penalty.penalty) == pytest.approx(expected)
        assert "param_names" not in o.param_groups[0]
    file = io.BytesIO()
    torch.save(copied, file)
    assert (b"PreNorm" in file.getvalue()) == (rule != "by_path")  # not the model, and its classes only if a rule asks


@pytest.mark.parametrize("ours", [False, True])
def test_anchors_by_name_and_groups_added_later(ours: bool) -> None:
    model = network()
    anchor = {n: p.detach() - 1 for n, p in model.named_parameters()}
    first, *rest = model.parameters()
    if ours:
        optimizer: Any = optim.SGD([first], lr=0.0, l1=1.0, anchor=anchor, model=model)
    else:
        optimizer = torch.optim.SGD([first], lr=0.0)
        attach(optimizer, 1.0, anchor=anchor, model=model)
    optimizer.add_param_group({"params": rest})
    optimizer.step()
    found = optimizer.penalty if ours else optimizer.fused_penalty.penalty
    assert float(found) == sum(p.numel() for p in model.parameters())


def test_errors_of_model() -> None:
    model, other = network(), network()
    optimizer = torch.optim.SGD(groups_of(model), lr=0.1)
    with pytest.raises(
        ValueError, match=r"^model: it does not have parameter 0 of group 0, of shape \(2,\)\. Give the"
    ):
        attach(optimizer, RULES["by_path"], model=other)
    with pytest.raises(TypeError, match=r"^model: .* is not an nn\.Module"):
        attach(optimizer, RULES["by_path"], model=dict(model.named_parameters()))  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^l1: by_type needs the parameters' modules, which .* does not know\. Give model"
    ):
        attach(optimizer, RULES["by_type"])
    with pytest.raises(ValueError, match=r"^mask: no_decay_on_norms_and_biases needs the parameters' names"):
        attach(optimizer, 1.0, mask=fp.no_decay_on_norms_and_biases())
    named = torch.optim.SGD(model.named_parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"^l1: by_type needs the parameters' modules, of which their names tell nothing"
    ):
        attach(named, RULES["by_type"])
    assert "fused_penalty" not in vars(optimizer)
    attach(named, 1.0, mask=fp.no_decay_on_norms_and_biases())
