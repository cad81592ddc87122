"""The errors of bad input, made in one place: each names argument, leaf path, value and remedy."""

from __future__ import annotations

from typing import Any

from .dtypes import DTYPES, WRITABLE, listed


def bad(kind: type[Exception], argument: str, what: str, remedy: str, *, path: str | None = None) -> Exception:
    """The error `kind` for `argument` (at the leaf `path`): what is wrong and what to do."""
    where = argument if path is None else f"{argument} at {path or '<root>'!r}"
    return kind(f"{where}: {what}. {remedy}")


def describe(value: Any) -> str:
    """A short description of a value for an error message."""
    try:
        text = repr(value)
    except Exception:  # nested too deeply, too long a number, or a user's __repr__ that fails
        text = ""
    if not text or len(text) > 60 or "\n" in text:
        text = f"a {type(value).__module__}.{type(value).__qualname__}"
    return text


def bad_dtype(path: str, dtype: Any, argument: str = "params") -> Exception:
    return bad(
        TypeError, argument, f"a leaf of dtype {dtype}, but a penalty needs {listed(DTYPES)}",
        "Leave it out with mask=, for example a mask that is False at this path", path=path,
    )  # fmt: skip


def bad_write(path: str | None, dtype: Any, argument: str = "params") -> Exception:
    return bad(
        TypeError, argument, f"a leaf of dtype {dtype} is only read, by penalty, sums and stats: what is written needs "
        f"{listed(WRITABLE)}",
        "Leave it out with mask=, or give a leaf of such a dtype", path=path,
    )  # fmt: skip


FILTER = "Filter the tree first (for example equinox.filter(model, equinox.is_inexact_array)) or use mask="


def bad_object(path: str, value: Any, arrays: str, *, remedy: str = FILTER, argument: str = "params") -> Exception:
    return bad(TypeError, argument, f"{describe(value)} is not {arrays}", remedy, path=path)


def bad_anchor(path: str, what: str) -> Exception:
    return bad(ValueError, "anchor", what, "Give an anchor with the structure, shapes and dtypes of params", path=path)
