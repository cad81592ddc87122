"""JAX and torch behind one face, so that one test suite takes the framework and the backend as a parameter.

Arrays go in and come out as NumPy arrays; everything between is the public API.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fused_penalty as fp
from fused_penalty._core.plan import CHUNK, GPU_CHUNK

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
ULP = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


class Frontend:
    framework: str
    chunk = CHUNK  # of the plan, around which there are edge cases

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def scope(self, tree: Any) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def __repr__(self) -> str:
        return f"{self.framework}-{self.backend}"


class Jax(Frontend):
    framework = "jax"

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        import jax

        import fused_penalty.jax as verbs

        self.jax, self.verbs = jax, verbs

    def scope(self, tree: Any) -> contextlib.AbstractContextManager[Any]:
        """float64 leaves need x64; all other calls run as JAX is by default."""
        wide = any(np.asarray(x).dtype == np.float64 for x in self.jax.tree.leaves(tree))
        return self.jax.enable_x64(True) if wide else contextlib.nullcontext()

    def to(self, tree: Any) -> Any:
        return self.jax.tree.map(self.jax.numpy.asarray, tree)

    def back(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def autodiff(self, tree: Any, l1: Any, l2: Any, **kw: Any) -> Any:
        return self.jax.grad(lambda p: self.verbs.penalty(p, l1, l2, backend=self.backend, **kw))(tree)

    def prox(self, tree: Any, *args: Any, **kw: Any) -> Any:
        return self.verbs.prox(tree, *args, backend=self.backend, **kw)

    def map(self, tree: Any) -> Any:
        return self.jax.tree.map(self.back, tree)


class Torch(Frontend):
    framework = "torch"

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        import torch

        import fused_penalty.torch as verbs

        self.torch, self.verbs = torch, verbs
        devices = next(d for name, framework, d, *_ in fp.backends().rows if (framework, name) == ("torch", backend))
        if backend in ("cuda", "triton"):
            self.chunk = GPU_CHUNK
        self.device = "cuda" if "cuda" in devices else "cpu"  # Triton's interpreter takes CPU tensors

    def to(self, tree: Any) -> Any:
        if isinstance(tree, dict):
            return {k: self.to(v) for k, v in tree.items()}
        if isinstance(tree, (list, tuple)):
            return [self.to(v) for v in tree]
        x = np.array(tree)  # writable: torch warns otherwise
        if x.dtype == ml_dtypes.bfloat16:
            return self.torch.from_numpy(x.view(np.int16)).view(self.torch.bfloat16).to(self.device)
        return self.torch.from_numpy(x).to(self.device)

    def back(self, x: Any) -> np.ndarray:
        x = x.detach().cpu()
        if x.dtype == self.torch.bfloat16:
            return x.contiguous().view(self.torch.int16).numpy().view(ml_dtypes.bfloat16)
        return x.numpy()

    def autodiff(self, tree: Any, l1: Any, l2: Any, **kw: Any) -> Any:
        leaves = self.map(tree, lambda x: x.detach().requires_grad_())
        self.verbs.penalty(leaves, l1, l2, backend=self.backend, **kw).backward()
        return self.map(leaves, lambda x: x.grad)

    def prox(self, tree: Any, *args: Any, **kw: Any) -> Any:
        """In place, on a copy."""
        copy = self.map(tree, lambda x: x.clone())
        self.verbs.prox_(copy, *args, backend=self.backend, **kw)
        return copy

    def map(self, tree: Any, f: Any = None) -> Any:
        f = f or self.back
        if isinstance(tree, dict):
            return {k: self.map(v, f) for k, v in tree.items()}
        return [self.map(v, f) for v in tree] if isinstance(tree, list) else f(tree)


KINDS: dict[str, type[Frontend]] = {"jax": Jax, "torch": Torch}


def _jax_has_cuda() -> bool:
    import jax

    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False


def params(only: str | None = None) -> Iterator[Any]:
    """pytest parameters: every row of the table of backends, or those of one framework; an absent one skips with its
    reason."""
    for name, framework, _, available, why in fp.backends().rows:
        if only not in (None, framework):
            continue
        reason = why if not available else ""
        if importlib.util.find_spec(framework) is None:
            reason = f"{framework} is not installed"
        elif framework == "jax" and name == "cuda" and not reason and not _jax_has_cuda():
            reason = "JAX has no CUDA platform here (jax-cuda13-plugin, JAX_PLATFORMS)"
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        yield pytest.param((framework, name), id=f"{framework}-{name}", marks=marks)


def on_cpu(framework: str) -> list[Any]:
    """pytest parameters: the names of the backends that take CPU arrays; Triton's where its interpreter is on."""
    found = []
    for name, mine, devices, available, why in fp.backends().rows:
        if mine == framework and name != "cuda":
            reason = why if not available else "" if "cpu" in devices or devices == "any" else "takes no CPU tensors"
            found.append(pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if reason else []))
    return found


def make(key: tuple[str, str]) -> Frontend:
    framework, backend = key
    return KINDS[framework](backend)
