"""Every public function says what it takes, returns and raises, and has an example, which pytest runs as a doctest.

Its parameters have types with names, not `Any`.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Modules whose `__all__` is public, and what they need; tests/clients looks at those for training libraries. Types of
# results and handles are left out: they are not called.
PUBLIC = {
    "fused_penalty": (),
    "fused_penalty.jax": ("jax",),
    "fused_penalty.optax": ("jax", "optax"),
    "fused_penalty.reference": ("jax",),
    "fused_penalty.reference_torch": ("torch",),
    "fused_penalty.torch": ("torch",),
}
BESIDE = {"fused_penalty.checkpoint.report.inspect": ("torch", "safetensors")}
RESULTS = ("Attached", "PenaltyState", "Stats", "Sums")
# The reference is there to be read: it checks nothing of its own, so it raises nothing of its own.
RAISES_NOTHING = (
    "fused_penalty.backends",
    *(f"fused_penalty.{m}.{f}" for m in ("reference", "reference_torch") for f in ("penalty", "sums", "prox")),
    *(f"fused_penalty.{m}.penalty_and_grad" for m in ("reference", "reference_torch")),
)
# Of a regularizer: treex's enum, keys of whatever kind; of Keras' own constructor.
ANYTHING = {"reduction", "on", "args", "kwargs"}
SECTION = re.compile(r"^(Args|Returns|Raises|Source|Example):", re.MULTILINE)


def public() -> Iterator[tuple[str, tuple[str, ...]]]:
    for module, needs in PUBLIC.items():
        if all(importlib.util.find_spec(name) for name in needs):
            for name in importlib.import_module(module).__all__:
                if name not in RESULTS:
                    yield f"{module}.{name}", needs
    for name, needs in BESIDE.items():
        if all(importlib.util.find_spec(n) for n in needs):
            yield name, needs


NAMES = dict(public())


def sections(f: Callable[..., Any]) -> dict[str, str]:
    """The text under each heading of the docstring; the summary's heading is empty."""
    parts = SECTION.split(inspect.getdoc(f) or "")
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def documented(args: str) -> list[str]:
    """The names in a section Args: a line at its indentation has names, a colon and text, perhaps in further lines."""
    heads = re.findall(r"^  (\w+(?:, \w+)*): ", args, re.MULTILINE)
    return [name for head in heads for name in head.split(", ")]


def faults(f: Callable[..., Any], name: str) -> list[str]:
    """What the docstring of a function, or of a class that is called, lacks."""
    found, text = [], sections(f)
    if not re.match(r".+\.$", text[""].split("\n\n")[0].replace("\n", " ")):
        found.append("a summary")
    parameters = list(inspect.signature(f).parameters)
    named = documented(text.get("Args", ""))
    found += [f"{p} in Args" for p in parameters if p not in named]
    found += [f"a parameter {n}" for n in named if n not in parameters]
    wanted = ["Example"]
    if not inspect.isclass(f):
        wanted.append("Returns")
    if name not in RAISES_NOTHING:
        wanted.append("Raises")
    found += [section for section in wanted if not text.get(section, "").strip()]
    if not doctest.DocTestParser().get_examples(text.get("Example", "")):
        found.append("a doctest in Example")
    return found


def load(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_complete(name: str) -> None:
    assert faults(load(name), name) == []


def nameless(f: Callable[..., Any]) -> set[str]:
    """The parameters whose types have no name."""
    parameters = inspect.signature(f).parameters.values()
    return {p.name for p in parameters if p.annotation in ("Any", Any, inspect.Parameter.empty)} - ANYTHING


@pytest.mark.parametrize("name", NAMES)
def test_types_have_names(name: str) -> None:
    assert nameless(load(name)) == set()


def sound(x: float, y: float = 0.0) -> float:
    """Add two numbers.

    Args:
      x: A number.
      y: Another: with a colon, and

        a second paragraph.

    Returns:
      The sum.

    Raises:
      TypeError: One is not a number.

    Example:
      >>> 1 + 1
      2
    """
    return x + y


DOCSTRING = inspect.cleandoc(sound.__doc__ or "") + "\n"  # as Python 3.13 stores it


@pytest.mark.parametrize(
    ("remove", "fault"),
    [
        ("  x: A number.\n", ["x in Args"]),
        ("Add two numbers.", ["a summary"]),
        ("Returns:\n  The sum.\n", ["Returns"]),
        ("  The sum.\n", ["Returns"]),
        ("Raises:\n  TypeError: One is not a number.\n", ["Raises"]),
        ("  >>> 1 + 1\n  2\n", ["Example", "a doctest in Example"]),
        (">>> 1 + 1", ["a doctest in Example"]),
        ("nothing of it", []),
    ],
)
def test_what_is_missing_is_found(monkeypatch: pytest.MonkeyPatch, remove: str, fault: list[str]) -> None:
    monkeypatch.setattr(sound, "__doc__", DOCSTRING.replace(remove, ""))
    assert faults(sound, "sound") == fault


def test_a_parameter_that_does_not_exist_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "__doc__", DOCSTRING.replace("  y: Another", "  y, z: Another"))
    assert faults(sound, "sound") == ["a parameter z"]


def test_the_families_share_the_names_of_types() -> None:
    for name in ("jax", "torch"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    families = [importlib.import_module(f"fused_penalty.{name}.types") for name in ("jax", "torch")]
    for name in ("Anchor", "Mask", "Params", "Scalar", "Step", "Strength"):
        assert all(hasattr(family, name) for family in families)
