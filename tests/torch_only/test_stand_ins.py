"""Tensors whose values are elsewhere are refused with the true reason: ZeRO-3, FSDP1, lazy modules, wrappers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn

import fused_penalty as fp
import fused_penalty.torch as verbs
from fused_penalty.torch import penalty, penalty_and_grad, prox_
from tests.support.fresh import run_fresh

VERBS = ["penalty", "penalty_and_grad", "sums", "stats", "prox_", "add_grad_", "regularize_"]


def placeholder(numel: int = 12, values: int = 0) -> nn.Parameter:
    """What DeepSpeed leaves of a parameter: `torch.empty(0)`, with attributes."""
    p: Any = nn.Parameter(torch.ones(values))
    p.ds_status, p.ds_shape, p.ds_numel = "NOT_AVAILABLE", torch.Size([numel]), numel
    return p


@pytest.mark.parametrize("verb", VERBS)
def test_a_placeholder_of_zero_3(verb: str) -> None:
    message = r"^params at 'b': an empty placeholder of DeepSpeed ZeRO-3.*Gather.*FSDP2"
    with pytest.raises(TypeError, match=message):
        getattr(verbs, verb)({"a": torch.ones(2), "b": placeholder()}, 0.1) if verb not in ("sums", "stats") else (
            getattr(verbs, verb)({"a": torch.ones(2), "b": placeholder()})
        )
    with pytest.raises(TypeError, match=r"^anchor at 'a': an empty placeholder"):
        getattr(verbs, verb)({"a": torch.ones(0)}, anchor={"a": placeholder()})


def test_a_gathered_or_empty_parameter_is_read() -> None:
    assert float(penalty([placeholder(3, values=3), placeholder(0)], 1.0).detach()) == 3.0
    assert float(penalty([torch.ones(0), torch.ones(2)], 1.0)) == 2.0
    masked = {"a": torch.ones(2), "b": placeholder()}
    assert float(penalty(masked, 1.0, mask={"a": True, "b": False})) == 2.0


def test_views_of_fsdp1_are_refused() -> None:
    out = run_fresh(
        """
        import warnings
        import torch, torch.distributed as dist
        import fused_penalty.torch as verbs
        from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        for original in (True, False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # FSDP's own, about a single rank without a GPU
                model = FSDP(torch.nn.Linear(3, 2), use_orig_params=original, device_id=torch.device("cpu"))
            for params in (model, list(model.parameters())):
                for verb in ("penalty", "sums", "prox_", "add_grad_"):
                    try:
                        getattr(verbs, verb)(params)
                        print("accepted")
                    except TypeError as e:
                        assert "FSDP1" in str(e) and "FSDP2" in str(e), e
            with FSDP.summon_full_params(model):
                whole = [p.data for p in model.parameters()]
                assert verbs.sums(whole).abs.sum() > 0
        plain = torch.nn.Linear(3, 2)  # in the same process
        print(len(verbs.sums(plain).paths))
        dist.destroy_process_group()
        """
    )
    assert out == "2"


@pytest.mark.parametrize("verb", VERBS)
def test_a_lazy_parameter(verb: str) -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    for params in (model, list(model.named_parameters()), dict(model.named_parameters())):
        with pytest.raises(TypeError, match=r"^params at '0\.weight': a parameter of a lazy module.*Run the module"):
            getattr(verbs, verb)(params)


def test_a_lazy_module_may_be_masked_out() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    mask = {"0": False, "1": True}
    expected = float(penalty(model[1], 0.1, 0.2).detach())
    assert float(penalty(model, 0.1, 0.2, mask=mask).detach()) == expected
    value, grads = penalty_and_grad(model, 0.1, 0.2, mask=mask)
    assert float(value) == expected
    assert grads["0.weight"] is None
    prox_(model, 0.1, mask=mask)
    assert float(penalty(model, fp.by_path({"1.*": 0.1}), 0.2, mask=mask).detach()) < expected


class Wrapper(Tensor):
    """A wrapper subclass, as torchao's quantized weights are."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Any:
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return "Wrapper"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*(a.inner if isinstance(a, Wrapper) else a for a in args), **(kwargs or {}))
        return Wrapper(out) if isinstance(out, Tensor) else out


def masked_tensor() -> Any:
    with pytest.warns(UserWarning, match="prototype"):
        return torch.masked.masked_tensor(torch.ones(3), torch.tensor([True, False, True]))


def two_tensor() -> Any:
    from torch.testing._internal.two_tensor import TwoTensor

    return TwoTensor(torch.ones(3), torch.ones(3))


def fake_tensor() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(3)


WRAPPERS = {"Wrapper": lambda: Wrapper(torch.ones(3)), "MaskedTensor": masked_tensor, "TwoTensor": two_tensor,
            "FakeTensor": fake_tensor}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_told_that_it_is_one(name: str, verb: str) -> None:
    x = WRAPPERS[name]()
    with pytest.raises(TypeError, match=rf"^params at 'w': a {name} has no memory of its own, as it wraps.*mask="):
        getattr(verbs, verb)({"w": x})
    with pytest.raises(TypeError, match=rf"^anchor at 'w': a {name} has no memory of its own"):
        getattr(verbs, verb)({"w": torch.ones(3)}, anchor={"w": x})


def test_freed_memory_is_still_told_apart() -> None:
    x = torch.ones(3)
    x.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="its memory has been freed, as FSDP does"):
        penalty([x], 0.1)


def test_subclasses_with_memory_are_read() -> None:
    class Named(Tensor):
        pass

    assert float(penalty([torch.ones(3).as_subclass(Named)], 1.0)) == 3.0


def test_a_freed_anchor_is_told_by_name() -> None:
    a = torch.ones(3)
    a.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match=r"^anchor at '0': its memory has been freed"):
        penalty([torch.ones(3)], 0.1, anchor=[a])
