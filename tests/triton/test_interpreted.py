"""What only the Triton backend has, run by Triton's interpreter: its tables follow the tensors, one launch per call,
and every operation writes the bits of the CPU kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="Triton is not installed")
from torch import Tensor, nn

from fused_penalty._core import backends as _backends
from fused_penalty.torch import add_grad_, attach, penalty, penalty_and_grad, prox_, regularize_, stats, sums
from tests.support import edges, frontends, oracle
from tests.support.frontends import DTYPES

pytestmark = pytest.mark.skipif(
    _backends.TRITON_DEVICES != ("cpu",),
    reason="needs TRITON_INTERPRET=1 from the start: test_suite.py sets it",
)
L1, L2 = 0.3, 0.2


@pytest.fixture
def tables() -> Any:
    from fused_penalty.torch.backends import triton as _torch_triton

    return _torch_triton.TABLES


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The operations of the kernels launched since."""
    from fused_penalty.torch.backends import triton as _torch_triton

    kernel, seen = _torch_triton.penalty_kernel, []

    class Counted:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def run(*args: Any, **options: Any) -> None:
                seen.append(options["OP"])
                kernel[grid](*args, **options)

            return run

    monkeypatch.setattr(_torch_triton, "penalty_kernel", Counted())
    return seen


def right(xs: list[Tensor]) -> None:
    """The penalty is that of what the tensors hold now."""
    leaves = [x.detach().clone().numpy() for x in xs]  # a view would pin its storage
    expected = oracle.penalty(leaves, [L1] * len(xs), [L2] * len(xs))
    assert float(penalty(xs, L1, L2, backend="triton").detach()) == pytest.approx(expected, rel=1e-6)


def test_unchanged_tensors_need_no_new_table(tables: Any) -> None:
    xs = [torch.randn(5), torch.randn(7, dtype=torch.float64)]
    right(xs)
    before = tables.uploads
    for x in xs:
        x.mul_(2)  # the same memory
    right(xs)
    assert tables.uploads == before


def reallocate(xs: list[Tensor]) -> None:
    xs[0] = xs[0].clone()


def resize(xs: list[Tensor]) -> None:
    xs[1].data.resize_(2 * xs[1].numel() + 1).fill_(0.5)


def swap_data(xs: list[Tensor]) -> None:
    xs[2].data = torch.randn(xs[2].numel() + 3)


def exchange(xs: list[Tensor]) -> None:
    xs[0].data, xs[2].data = xs[2].data, xs[0].data


def free(xs: list[Tensor]) -> None:
    """The allocator gives the memory to the next of that size, here of another dtype."""
    n = xs[0].numel()
    xs[0] = torch.empty(0)
    xs[0] = torch.randn(n).half()


def move(xs: list[Tensor]) -> None:
    """Away and back, as offloading does."""
    there = xs[1].data.numpy().copy()
    xs[1].data = torch.empty(0)
    xs[1].data = torch.tensor(there)


CHANGES = (reallocate, resize, swap_data, exchange, free, move)


@pytest.mark.parametrize("change", CHANGES)
def test_a_table_is_never_stale(change: Callable[[list[Tensor]], None]) -> None:
    torch.manual_seed(0)
    xs = [nn.Parameter(torch.randn(n)) for n in (6, 3, 6)]
    right(xs)
    for _ in range(3):
        change(xs)
        right(xs)


def test_changes_in_any_order() -> None:
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    xs = [nn.Parameter(torch.randn(n)) for n in (6, 3, 6)]
    for _ in range(25):
        CHANGES[rng.integers(len(CHANGES))](xs)
        if xs[1].numel() > 1000:
            xs[1] = nn.Parameter(torch.randn(3))
        right(xs)


def test_one_launch_a_call(launches: list[int]) -> None:
    xs = [nn.Parameter(torch.randn(n, dtype=d)) for n in (3, 40) for d in (torch.float16, torch.float32, torch.float64)]
    for x in xs:
        x.grad = torch.ones_like(x)
    for call in (penalty_and_grad, add_grad_, prox_, regularize_):
        call(xs, L1, L2, backend="triton")
    sums(xs, backend="triton")
    stats(xs, backend="triton")
    assert launches == [1, 2, 3, 4, 0, 5]
    launches.clear()
    penalty(xs, L1, L2, backend="triton").backward()
    assert launches == [0, 1]  # forward, backward
    launches.clear()
    optimizer = torch.optim.SGD(xs, lr=0.1)
    handle = attach(optimizer, L1, L2, backend="triton")
    optimizer.step()
    assert launches == [2]
    handle.remove()


def test_the_same_bits_every_time() -> None:
    xs = [torch.randn(n) for n in (3, 5000, 20_000)]
    first = sums(xs, backend="triton")
    shifted = [torch.cat([torch.zeros(1), x])[1:] for x in xs]  # not at a multiple of 16 bytes
    for other in (sums(xs, backend="triton"), sums(shifted, backend="triton")):
        assert torch.equal(first.abs, other.abs)
        assert torch.equal(first.square, other.square)


def test_more_partials_than_are_added_at_once() -> None:
    """Of one leaf: the last program adds up 64 chunks, and then the others."""
    from fused_penalty._core.plan import GPU_CHUNK
    from fused_penalty._kernels.triton.kernel import PARTIALS

    x = torch.full(((PARTIALS.value + 1) * GPU_CHUNK + 5,), 0.5, dtype=torch.float16)
    x[3], x[-2], x[-1] = -2, 4, 0
    found = stats([x], backend="triton")
    n = x.numel() - 3
    assert [c.item() for c in found[:5]] == [0.5 * n + 6, 0.25 * n + 20, 4.0, 1, 0]
    x[-2] = torch.nan
    assert stats([x], backend="triton").max.isnan().all()


UPDATES: dict[str, Callable[..., Any]] = {"add_grad_": add_grad_, "prox_": prox_, "regularize_": regularize_}


@pytest.mark.parametrize("anchored", [False, True], ids=["plain", "anchored"])
@pytest.mark.parametrize("verb", UPDATES)
def test_updates_write_the_bits_of_the_cpu_kernels(verb: str, anchored: bool) -> None:
    """All dtypes in one launch; the interpreter rounds to bfloat16 by cutting bits off: one ulp."""
    front = frontends.make(("torch", "triton"))
    leaves = [x.ravel()[:1000].copy() for dtype in DTYPES.values() for _, x in edges.edge_leaves(dtype, 999)]
    written = []
    for backend in ("triton", "cpu"):
        torch.manual_seed(3)
        xs = [nn.Parameter(x) for x in front.to(leaves)]
        for x in xs:
            x.grad = torch.randn(x.shape).to(x.dtype)
        kw = {"anchor": [torch.randn(x.shape).to(x.dtype) for x in xs]} if anchored else {}
        UPDATES[verb](xs, L1, L2, backend=backend, **kw)
        written.append([(x.grad if verb == "add_grad_" else x).detach() for x in xs])
    for ours, theirs in zip(*written, strict=True):
        if ours.dtype == torch.bfloat16:
            torch.testing.assert_close(ours, theirs, rtol=2.0**-7, atol=1e-37)
        else:
            assert torch.equal(ours, theirs)
