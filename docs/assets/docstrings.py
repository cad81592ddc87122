"""What mkdocstrings is told about our docstrings, beside mkdocs.yml."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """A section "Example" holds doctests, as "Examples" does elsewhere."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        """A page has functions first, and the types of their results after them."""
        if mod.exports is not None:
            mod.exports = sorted(mod.exports, key=lambda name: str(name)[0].isupper())
