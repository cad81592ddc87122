"""Results as digests, bit for bit: `python -m tests.support.golden` prints them for the backends of this process, as
golden.json holds them.

The kernels promise the same bits on every machine, whatever its instruction set and number of threads. So a change of
one digest is a change of the arithmetic: meant, and then told in the changelog, or a mistake. (The references leave the
order of additions to torch and XLA, and promise no bits; nor does torch's penalty, which torch adds up from the sums.)
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("golden.json")
SIZES = (1, 31, 4099, 70_001)  # the last one is longer than a chunk on every backend
DTYPES = ("float16", "bfloat16", "float32", "float64")


def numbers(n: int, salt: int) -> np.ndarray:
    """Between -3 and 3, from a formula: no generator that another release of NumPy might change. Some are zero."""
    mixed = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(40503 * salt + 977)) % np.uint64(1 << 32)
    x = mixed / 2.0**31 * 3 - 3
    x[5::97] = 0
    return x


def digest(arrays: list[np.ndarray]) -> str:
    found = hashlib.sha256()
    for a in arrays:
        found.update(np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:16]


def torch_results(backend: str) -> Iterator[tuple[str, str]]:
    """Of every verb, the leaves of all dtypes in one launch."""
    import torch

    from fused_penalty import torch as verbs

    def leaves(salt: int) -> list[torch.Tensor]:
        kinds = [(getattr(torch, name), n) for name in DTYPES for n in SIZES]
        return [torch.from_numpy(numbers(n, salt + i)).to(kind) for i, (kind, n) in enumerate(kinds)]

    def bits(tensors: Any) -> list[np.ndarray]:
        return [t.detach().contiguous().reshape(-1).view(torch.uint8).numpy() for t in tensors]

    l1 = [0.1 * (1 + i % 3) for i in range(len(DTYPES) * len(SIZES))]

    def added(**kw: Any) -> list[torch.Tensor]:
        xs = leaves(1)
        for x, g in zip(xs, leaves(3), strict=True):
            x.grad = g
        verbs.add_grad_(xs, l1, 0.3, **kw)
        return [x.grad for x in xs if x.grad is not None]

    def changed(verb: Callable[..., Any], **kw: Any) -> list[torch.Tensor]:
        xs = leaves(1)
        verb(xs, l1, 0.3, **kw)
        return xs

    for suffix, anchor in (("", None), (", anchored", leaves(2))):
        kw: dict[str, Any] = {"backend": backend, "anchor": anchor}
        found = {
            "sums": verbs.sums(leaves(1), **kw)[:2],
            "stats": verbs.stats(leaves(1), **kw)[:5],
            "penalty_and_grad": verbs.penalty_and_grad(leaves(1), l1, 0.3, **kw)[1],
            "add_grad_": added(**kw),
            "prox_": changed(verbs.prox_, step=0.5, **kw),
            "regularize_": changed(verbs.regularize_, **kw),
        }
        yield from ((f"{verb}{suffix}", digest(bits(tensors))) for verb, tensors in found.items())


def jax_results(backend: str) -> Iterator[tuple[str, str]]:
    import jax.numpy as jnp

    from fused_penalty import jax as verbs

    def leaves(salt: int) -> list[Any]:
        return [jnp.asarray(numbers(n, salt + i)).astype(kind) for i, (kind, n) in enumerate(kinds)]

    kinds = [(name, n) for name in DTYPES[:3] for n in SIZES]  # float64 needs a switch that is for the whole process
    l1 = [0.1 * (1 + i % 3) for i in range(len(kinds))]
    for suffix, anchor in (("", None), (", anchored", leaves(2))):
        kw: dict[str, Any] = {"backend": backend, "anchor": anchor}
        value, grads = verbs.penalty_and_grad(leaves(1), l1, 0.3, **kw)
        found = {
            "penalty": [verbs.penalty(leaves(1), l1, 0.3, **kw)],
            "sums": verbs.sums(leaves(1), **kw)[:2],
            "stats": verbs.stats(leaves(1), **kw)[:5],
            "penalty_and_grad": [value, *grads],
            "prox": verbs.prox(leaves(1), l1, 0.3, step=0.5, **kw),
        }
        yield from ((f"{verb}{suffix}", digest([np.asarray(a) for a in arrays])) for verb, arrays in found.items())


FRAMEWORKS = {"torch": torch_results, "jax": jax_results}


def results(framework: str, backend: str) -> dict[str, str]:
    return dict(FRAMEWORKS[framework](backend))


def main() -> None:
    import fused_penalty as fp

    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for backend, framework, _, available, _ in fp.backends().rows:
        if available and backend != "reference" and importlib.util.find_spec(framework):
            known[f"{framework} {backend}"] = results(framework, backend)
    json.dump(known, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
