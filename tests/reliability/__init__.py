"""The promises of docs/reliability.md, each with its proof: `make reliability` runs them and writes the page.

One module per kind of promise; `tests/test_reliability.py` runs each of them with small counts.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# Cases of tests/misuse.py and names of promises, as globs.
EXPECTED_AFTER_MERGE: tuple[str, ...] = (
    "*-huge int",
    "*-cyclic",
    "*-nested 10,000 deep",
    "*-two leaves of one name",
    "*-backend-a list",
    "*-backend-a number",
    "*-backend-false",
    "*-anchor-texts",
    "*-anchor-of the other framework",
    "torch-*-wrapper",
    "torch-*-on meta",
    "torch-*-l[12]-sparse",
    "torch-prox_-step-sparse",
    "torch-*-a lazy module",
    "torch-add_grad_-create-*",
    "failing threads",
    "layouts",
)


def is_expected_later(name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in EXPECTED_AFTER_MERGE)
