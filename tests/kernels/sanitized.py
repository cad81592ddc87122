"""Random small calls of every operation through torch's and JAX's verbs, against their references: what
test_sanitizers.py runs with a module that was built under sanitizers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.kernels import forged
from tests.support.edges import SIZES
from tests.support.frontends import DTYPES, Jax, Torch

SMALL = [n for n in SIZES if n < 5000]
LARGE = 1_600_000  # two helpers


def leaf(rng: np.random.Generator, dtype: np.dtype, size: int) -> np.ndarray:
    return rng.standard_normal(size).astype(dtype)


def lists(rng: np.random.Generator, wide: bool) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """A list of leaves of mixed dtypes, and half of the time anchors."""
    kinds = [d for name, d in DTYPES.items() if wide or name != "float64"]
    picks = [(kinds[rng.integers(len(kinds))], int(rng.choice(SMALL))) for _ in range(rng.integers(1, 6))]
    if rng.random() < 0.1:
        picks.append((kinds[rng.integers(len(kinds))], LARGE))
    xs = [leaf(rng, *p) for p in picks]
    return xs, [leaf(rng, *p) for p in picks] if rng.random() < 0.5 else None


def close(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found).astype(np.float64), np.asarray(expected).astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)  # bfloat16 ends after 8 bits


def shifted(torch: Any, rng: np.random.Generator, x: Any) -> Any:
    """The same at the very end of a block of memory, so that a read past it is seen; at any alignment."""
    k = int(rng.integers(0, 8))
    memory = torch.empty(x.numel() + k, dtype=x.dtype)
    memory[k:] = x
    return memory[k:]


def drive_torch(rounds: int) -> None:
    cpu, reference = Torch("cpu"), Torch("reference")
    torch, rng = cpu.torch, np.random.default_rng(0)
    torch.set_num_threads(3)
    for _ in range(rounds):
        xs, anchors = lists(rng, True)
        a, b = ([shifted(torch, rng, x) for x in cpu.to(xs)] for _ in range(2))
        kw = {"anchor": None if anchors is None else [shifted(torch, rng, x) for x in cpu.to(anchors)]}
        for name in ("sums", "stats"):
            found, expected = (
                getattr(f.verbs, name)(t, backend=f.backend, **kw) for f, t in ((cpu, a), (reference, b))
            )
            for p, q in zip(found, expected, strict=True):
                if not isinstance(p, (list, tuple)):  # the paths
                    np.testing.assert_allclose(cpu.back(p), cpu.back(q), rtol=1e-5)
        for f, t in ((cpu, a), (reference, b)):
            f.gradients = f.verbs.penalty_and_grad(t, 0.1, 0.2, backend=f.backend, **kw)[1]  # type: ignore[attr-defined]
            for x in t:
                x.grad = torch.ones_like(x)
            f.verbs.add_grad_(t, 0.1, 0.2, backend=f.backend, **kw)
            f.verbs.regularize_(t, 0.1, 0.2, backend=f.backend, **kw)
            f.verbs.prox_(t, 0.1, 0.2, backend=f.backend, **kw)
        for p, q in zip([*cpu.gradients, *a], [*reference.gradients, *b], strict=True):  # type: ignore[attr-defined]
            close(cpu.back(p), cpu.back(q))
        for p, q in zip(a, b, strict=True):
            close(cpu.back(p.grad), cpu.back(q.grad))


def drive_jax(rounds: int) -> None:
    cpu, reference, rng = Jax("cpu"), Jax("reference"), np.random.default_rng(1)
    for _ in range(rounds):
        xs, anchors = lists(rng, False)
        tree, kw = cpu.to(xs), {"anchor": None if anchors is None else cpu.to(anchors)}
        for name in ("sums", "stats"):
            found, expected = (getattr(f.verbs, name)(tree, backend=f.backend, **kw) for f in (cpu, reference))
            for p, q in zip(cpu.jax.tree.leaves(found), cpu.jax.tree.leaves(expected), strict=True):
                if not isinstance(p, str):
                    np.testing.assert_allclose(p, q, rtol=1e-5)
        for name in ("penalty_and_grad", "prox"):
            found, expected = (
                getattr(f.verbs, name)(tree, 0.1, 0.2, backend=f.backend, **kw) for f in (cpu, reference)
            )
            cpu.jax.tree.map(close, found, expected)


def drive_steps() -> None:
    """Every kind of an optimizer's step, with memory of its own for each array, so that a read past it is seen."""
    from fused_penalty import _cpu
    from tests.support.step_cases import CASES, Arrays
    from tests.support.step_cases import DTYPES as STEP_DTYPES

    for step, changed in CASES:
        for kind in STEP_DTYPES:
            for anchored in (False, True):
                arrays = Arrays(step, [kind], anchored=anchored, sizes=[*SMALL, LARGE // 8])
                arrays.launch(arrays.coefficients(**changed), _cpu.best_isa(), threads=3)


def drive() -> None:
    drive_torch(60)
    drive_steps()
    drive_jax(6)  # each list is compiled
    for group in forged.groups():
        forged.run(group)
    print("driven")


def use_after_free() -> None:
    """A seeded fault: the sanitizer must end the process."""
    import torch

    from fused_penalty import _cpu
    from fused_penalty._core.operations import Op
    from fused_penalty._core.plan import BOTH, plan_of_layout

    x = torch.ones(1000)
    read, total = _cpu.Tensors([x]), torch.zeros(1, 2, dtype=torch.float64)
    x.untyped_storage().resize_(0)
    _cpu.launch(Op.SUMS, plan_of_layout(read.layout, BOTH).table, read, None, None, None, total, 1)
    print("unnoticed")
