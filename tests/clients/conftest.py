"""The libraries that users train with. `make clients` installs them; without one its tests skip and say so."""

from __future__ import annotations

import importlib.util
import os
import sys
import types

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are made from a configuration, nothing is fetched

if importlib.util.find_spec("torchvision") is not None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # The index's torchvision beside a CPU build of torch: its extension does not load, so this module finds no
        # operators to describe. timm and torchmetrics import torchvision, but nothing here detects objects.
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other people's warnings are not ours to mend."""
    for item in items:
        if "clients" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"))
