"""Doctests: modules that need what is not here are left out; the tests of their backends say why they skip."""

from __future__ import annotations

import importlib.util

NEEDS = {
    "_torch_cuda.py": "fused_penalty._cuda",
    "_torch_cpu.py": "fused_penalty._cpu",
    "_torch_native.py": "fused_penalty._cpu",
    "_torch_triton.py": "triton",
}
collect_ignore = [f"fused_penalty/{file}" for file, module in NEEDS.items() if importlib.util.find_spec(module) is None]
