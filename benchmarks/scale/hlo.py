"""Launches and collectives counted in the HLO that XLA compiles: what every device runs."""

from __future__ import annotations

import re
from typing import Any

COUNTED = {
    "launches": r'custom_call_target="fused_penalty',
    "all_reduces": r" all-reduce(?:-start)?\(",
    "all_gathers": r" all-gather(?:-start)?\(",
    "other_collectives": r" (?:all-to-all|collective-permute|reduce-scatter|collective-broadcast)(?:-start)?\(",
}


def counts(hlo: str) -> dict[str, int]:
    """How often each of COUNTED stands in the text of a compiled module: what every device runs."""
    return {name: len(re.findall(pattern, hlo)) for name, pattern in COUNTED.items()}


def compiled_counts(f: Any, *args: Any) -> dict[str, int]:
    import jax

    return counts(jax.jit(f).lower(*args).compile().as_text())
