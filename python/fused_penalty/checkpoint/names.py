"""Names of files and leaves, which come from anywhere, as text that is safe to print."""

from __future__ import annotations


def printable(text: object) -> str:
    """The text with each character that does not print as itself (control characters, changes of direction, line
    ends, lone surrogates) as its Python escape. Idempotent.

    >>> printable("layer[0].w\\x1b[2J")
    'layer[0].w\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
