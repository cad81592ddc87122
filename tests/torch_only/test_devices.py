"""A default device is for the tensors a user makes: ours go where the leaves are, or, without leaves, to the CPU."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import fused_penalty as fp
import fused_penalty.torch
from fused_penalty.torch import (
    add_grad_,
    attach,
    clip_grad_norm_,
    global_norm,
    penalty,
    penalty_and_grad,
    prox_,
    regularize_,
    stats,
    sums,
)
from tests.support import frontends

VERBS: dict[str, Callable[..., Any]] = {
    "penalty": penalty,
    "penalty_and_grad": penalty_and_grad,
    "sums": lambda xs, l1, l2, **kw: sums(xs, **kw),
    "stats": lambda xs, l1, l2, **kw: stats(xs, **kw),
    "global_norm": lambda xs, l1, l2, **kw: global_norm(xs, backend=kw.get("backend")),
    "clip_grad_norm_": lambda xs, l1, l2, **kw: clip_grad_norm_(xs, 0.1, backend=kw.get("backend")),
    "add_grad_": add_grad_,
    "prox_": prox_,
    "regularize_": regularize_,
    "L1L2": lambda xs, l1, l2, **kw: fp.L1L2(l1, l2)(xs),
}
SOURCES = Path(fused_penalty.torch.__file__).parent
MAKERS = {"empty", "zeros", "ones", "full", "tensor", "as_tensor", "arange", "linspace", "eye", "rand", "randn"}


def numbers(found: Any) -> Any:
    """All that a verb gives, on the CPU."""
    if isinstance(found, torch.Tensor):
        assert found.device.type == "cpu"
        return found.tolist()
    return [numbers(x) for x in found] if isinstance(found, (list, tuple)) else found


def run(verb: str, backend: str) -> Any:
    cpu = torch.device("cpu")
    xs = [torch.tensor([1.0, -2.0, 0.0], device=cpu), torch.tensor(3.0, dtype=torch.float64, device=cpu)]
    for x in xs:
        x.requires_grad_()
        x.grad = torch.full_like(x, 0.5)
    with torch.no_grad():
        anchors = [x.flip(0) if x.ndim else x - 1 for x in xs]
    found = [VERBS[verb](xs, 0.3, [0.25, 0.5] if verb != "L1L2" else 0.2, backend=backend)]
    if verb != "L1L2":
        found.append(VERBS[verb](xs, 0.3, 0.2, anchor=anchors, backend=backend))
    with torch.no_grad():  # the native path of a penalty without a derivative
        found.append(VERBS[verb](xs, 0.3, 0.2, backend=backend))
    return numbers([found, xs, [x.grad for x in xs]])


@pytest.mark.parametrize("backend", frontends.on_cpu("torch"))
@pytest.mark.parametrize("verb", VERBS)
def test_leaves_on_another_device_than_the_default(verb: str, backend: str) -> None:
    expected = run(verb, backend)
    with torch.device("meta"):
        assert run(verb, backend) == expected
    torch.set_default_device("meta")
    try:
        assert run(verb, backend) == expected
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("mode", ["grad", "prox"])
def test_an_attached_optimizer(mode: str) -> None:
    def step() -> Any:
        w = torch.nn.Parameter(torch.tensor([1.0, -2.0], device="cpu"))
        w.grad = torch.full_like(w, 0.5)
        optimizer = torch.optim.SGD([w], lr=0.1)
        handle = attach(optimizer, 0.3, 0.2, mode=mode)
        optimizer.step()
        return numbers([handle.penalty, w])

    expected = step()
    with torch.device("meta"):
        assert step() == expected


@pytest.mark.parametrize("verb", [v for v in VERBS if v != "L1L2"])
def test_nothing_selected_is_zero_on_the_cpu_in_float32(verb: str) -> None:
    """A 0-d CPU tensor adds to a loss on any device."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = VERBS[verb]([], 0.1, 0.1)
    finally:
        torch.set_default_dtype(torch.float32)
    first = found[0] if isinstance(found, tuple) else found
    assert (first.device.type, first.dtype) == ("cpu", torch.float32)
    numbers(found)


def unplaced(path: Path) -> list[str]:
    """Calls of torch that make a tensor and do not say where."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    return [
        f"{path.name}:{call.lineno} torch.{f.attr}"
        for call in calls
        if isinstance(f := call.func, ast.Attribute)
        and isinstance(f.value, ast.Name)
        and (f.value.id, f.attr in MAKERS) == ("torch", True)
        and not any(k.arg == "device" for k in call.keywords)
    ]


def test_every_new_tensor_names_its_device() -> None:
    files = [f for f in SOURCES.rglob("*.py") if "torch" in f.relative_to(SOURCES.parent).parts]
    assert len(files) > 10
    assert [call for f in files for call in unplaced(f)] == []


def test_the_check_above_finds_what_it_looks_for(tmp_path: Path) -> None:
    source = tmp_path / "made.py"
    source.write_text("import torch\na = torch.zeros(3)\nb = torch.zeros(3, device='cpu')\nc = torch.zeros_like(a)\n")
    assert unplaced(source) == ["made.py:2 torch.zeros"]
