"""`torch.ops.fused_penalty.*` called with operands that the verbs never pass: each is refused by the operand's name,
and nothing is read or written past an end. In a process of its own, so that a crash is a failure."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor

import fused_penalty.torch  # noqa: F401  registers the ops
from tests.support.fresh import run_fresh

F64 = torch.float64
SAME_MEMORY = "add_gradients_: grads"  # which a fake tensor does not have

# name of the operand in the error -> the forged call; n leaves `xs`, copies `outs`, coefficients `s`, terms `t`
FORGED = {
    "gradients: coefficients": "ops.gradients(xs, [], s[:1], t, live, '')",
    "gradients: coefficients of 3 columns": "ops.gradients(xs, [], torch.zeros(n, 3, dtype=F64), t, live, '')",
    "gradients: coefficients flat": "ops.gradients(xs, [], s.flatten(), t, live, '')",
    "gradients: coefficients in float32": "ops.gradients(xs, [], s.float(), t, live, '')",
    "gradients: coefficients on meta": "ops.gradients(xs, [], s.to('meta'), t, live, '')",
    "gradients: terms": "ops.gradients(xs, [], s, t[:1], live, '')",
    "gradients: terms of 4": "ops.gradients(xs, [], s, [4] * n, live, '')",
    "gradients: terms of -1": "ops.gradients(xs, [], s, [-1] * n, live, '')",
    "gradients: live": "ops.gradients(xs, [], s, t, [n], '')",
    "gradients: live of -1": "ops.gradients(xs, [], s, t, [-1], '')",
    "gradients: live twice": "ops.gradients(xs, [], s, t, [3, 3], '')",
    "gradients: anchors": "ops.gradients(xs, xs[:1], s, t, live, '')",
    "gradients: anchors[0]": "ops.gradients(xs, [x[:1] for x in xs], s, t, live, '')",
    "gradients: xs": "ops.gradients([], [], s[:0], [], [], '')",
    "gradients: xs[1]": "ops.gradients([xs[0], xs[1].to('meta')], [], s[:2], t[:2], [0], '')",
    "gradients: backend": "ops.gradients(xs, [], s, t, live, 'nonsense')",
    "sums: xs": "ops.sums([], [], [], '')",
    "sums: xs[0]": "ops.sums([torch.ones(3, dtype=torch.int32)], [], [3], '')",
    "sums: xs[0] sparse": "ops.sums([torch.ones(3).to_sparse()], [], [3], '')",
    "sums: xs[0] on meta": "ops.sums([torch.ones(3, device='meta')], [], [3], '')",
    "sums: anchors[2]": "ops.sums(xs, [*xs[:2], xs[2].double(), *xs[3:]], t, '')",
    "sums: anchors": "ops.sums(xs, xs[1:], t, '')",
    "sums: terms": "ops.sums(xs, [], t[1:], '')",
    "stats: anchors": "ops.stats(xs, xs[1:], '')",
    "stats: xs[1]": "ops.stats([xs[0], torch.ones(3, dtype=torch.complex64)], [], '')",
    "add_gradients_: coefficients": "ops.add_gradients_(xs, [], outs, live, s[:1], t, '')",
    "add_gradients_: terms": "ops.add_gradients_(xs, [], outs, live, s, t[1:], '')",
    "add_gradients_: grads[0]": "ops.add_gradients_(xs, [], [outs[0][:1], *outs[1:]], live, s, t, '')",
    "add_gradients_: grads[0] in bfloat16": "ops.add_gradients_(xs, [], [o.bfloat16() for o in outs], live, s, t, '')",
    "add_gradients_: grads": "ops.add_gradients_(xs, [], [outs[0]] * n, live, s, t, '')",
    "add_gradients_: live": "ops.add_gradients_(xs, [], outs, live[1:], s, t, '')",
    "add_gradients_: live beyond": "ops.add_gradients_(xs, [], outs[:1], [n + 5], s, t, '')",
    "scale_: coefficients": "ops.scale_(outs, s[:1], '')",
    "scale_: coefficients on meta": "ops.scale_(outs, s.to('meta'), '')",
    "scale_: xs": "ops.scale_([], s[:0], '')",
    "scale_: xs[0] sparse": "ops.scale_([torch.ones(3).to_sparse()], s[:1], '')",
    "scale_: xs[0] in float8": "ops.scale_([torch.ones(3).to(torch.float8_e5m2)], s[:1], '')",
    "scale_: xs[1]": "ops.scale_([xs[0], torch.ones(3, dtype=torch.complex64)], s[:2], '')",
    "update_: coefficients": "ops.update_(outs, [], [], live, s[:1], t, 3, '')",
    "update_: terms": "ops.update_(outs, [], [], live, s, [], 3, '')",
    "update_: live": "ops.update_(outs, [], [], live[1:], s, t, 3, '')",
    "update_: live reversed": "ops.update_(outs, [], [], live[::-1], s, t, 3, '')",
    "update_: written": "ops.update_([outs[0]] * n, [], [], live, s, t, 3, '')",
    "update_: anchors": "ops.update_(outs, [], outs[1:], live, s, t, 3, '')",
    "update_: op": "ops.update_(outs, [], [], live, s, t, 1, '')",
    "update_: op of 99": "ops.update_(outs, [], [], live, s, t, 99, '')",
    "update_: op of -1": "ops.update_(outs, [], [], live, s, t, -1, '')",
}  # fmt: skip

SETTING = """
import torch
import fused_penalty.torch
ops, F64 = torch.ops.fused_penalty, torch.float64
n = 100
xs = [torch.full((1000,), float(i)) for i in range(n)]
outs = [x.clone() for x in xs]
s, t, live = torch.ones(n, 2, dtype=F64), [3] * n, list(range(n))
"""


def names() -> dict[str, str]:
    """The operand that each error must name."""
    return {name: name.split(": ")[1].split(" ")[0] for name in FORGED}


def check(calls: dict[str, str]) -> None:
    """In this process: each call raises ValueError or TypeError that begins with the operand, and writes nothing."""
    space: dict[str, object] = {}
    exec(SETTING, space)
    expected = names()
    for name, call in calls.items():
        with pytest.raises((ValueError, TypeError)) as caught:
            exec(call, space)
        assert str(caught.value).startswith(expected[name] + ": "), (name, str(caught.value))
        outs, xs = space["outs"], space["xs"]
        assert all(torch.equal(a, b) for a, b in zip(outs, xs, strict=True)), name


def test_forged_operands_are_refused_by_name() -> None:
    code = "from tests.torch_only import test_ops as t; t.check(t.FORGED); print('alive')"
    assert run_fresh(code) == "alive"


@pytest.mark.parametrize("name", [n for n in FORGED if "backend" not in n and "written" not in n and n != SAME_MEMORY])
def test_forged_operands_are_refused_where_a_graph_is_traced(name: str) -> None:
    """The fake implementations check what they can see: all but memory."""
    from torch._subclasses import FakeTensorMode

    space: dict[str, object] = {}
    with FakeTensorMode():
        exec(SETTING, space)
        with pytest.raises((ValueError, TypeError), match=names()[name].replace("[", r"\[")):
            exec(FORGED[name], space)


def right() -> tuple[list[Tensor], Tensor]:
    xs = [torch.tensor([1.0, -2.0]), torch.tensor([[3.0]], dtype=F64)]
    return xs, torch.tensor([[1.0, 2.0], [0.5, 0.0]], dtype=F64)


def test_right_operands_are_taken() -> None:
    xs, s = right()
    ops = torch.ops.fused_penalty
    assert ops.sums(xs, [], [3, 3], "").tolist() == [[3.0, 5.0], [3.0, 9.0]]
    assert [g.tolist() for g in ops.gradients(xs, [], s, [3, 1], [0, 1], "")[1]] == [[3.0, -5.0], [[0.5]]]
    grads = [torch.zeros_like(xs[1])]
    ops.add_gradients_(xs, [], grads, [1], s, [3, 1], "")
    assert grads[0].tolist() == [[0.5]]
    ops.update_([xs[0]], [xs[1]], [], [0], s, [3, 3], 3, "")
    assert [x.tolist() for x in xs] == [[0.0, -2.0], [[3.0]]]
    ops.scale_(xs, torch.tensor([[0.0, 2.0], [0.0, -1.0]], dtype=F64), "")
    assert [x.tolist() for x in xs] == [[0.0, -4.0], [[-3.0]]]


def test_ops_are_sound() -> None:
    from fused_penalty.torch import ops

    xs, s = right()
    torch.library.opcheck(ops.stats.op, (xs, [], ""))
    torch.library.opcheck(ops.gradients.op, (xs, xs, s, [3, 3], [1], ""))
    torch.library.opcheck(ops.add_gradients_.op, (xs, [], [torch.zeros(2)], [0], s, [3, 3], ""))
    torch.library.opcheck(ops.scale_.op, (xs, s, ""))
    torch.library.opcheck(ops.update_.op, ([xs[1]], [xs[0]], [], [1], s, [3, 3], 4, ""))
