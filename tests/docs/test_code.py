"""The code of docs/ runs, and the commands in it and in the README name what there is.

tests/core/test_package.py runs the README's code, tests/clients/test_docs.py what needs a library of `make clients`."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import shlex
import tomllib

import pytest

from tests.support.code_blocks import Block, blocks
from tests.support.paths import ROOT

for name in ("jax", "torch", "flax", "equinox", "optax"):
    pytest.importorskip(name, reason=f"{name} is not installed")

PYTHON = [b for b in blocks("python") if b.page.name != "README.md" and not b.clients()]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block) -> None:
    block.run()


@pytest.mark.parametrize("block", blocks("pycon"), ids=str)
def test_sessions_print_what_the_page_has(block: Block) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, {}, str(block), str(block.page), block.line - 1)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert test.examples
    assert runner.run(test, out=said.append).failed == 0, "".join(said)


def test_messages_that_are_quoted_in_part_are_in_the_code() -> None:
    """The tables of docs/errors.md: a message in the first column."""
    strings = {
        node.value
        for file in (ROOT / "python").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    quoted = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert len(quoted) > 5
    assert [q for q in quoted if not any(q in s for s in strings)] == []


COMMANDS = [(f"{b}: {line}", line) for b in blocks("sh") for line in b.text.splitlines() if line.strip()]


@pytest.mark.parametrize("line", [line for _, line in COMMANDS], ids=[name for name, _ in COMMANDS])
def test_commands_name_what_there_is(line: str) -> None:
    words = shlex.split(line, comments=True)
    while "=" in words[0]:  # variables
        words.pop(0)
    match words:
        case ["make", *targets]:
            rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {t for t in targets if "=" not in t} <= set(rules)
        case ["pip", "install", what]:
            assert set(re.findall(r"[\w-]+", what.partition("[")[2])) <= set(EXTRAS)
        case ["fused-penalty", *arguments] | ["python", "-m", "fused_penalty", *arguments]:
            from fused_penalty.__main__ import _parser

            _parser().parse_args(arguments)
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module)
        case ["python", file, *_]:
            assert (ROOT / file).exists()
        case _:
            pytest.fail(f"{words[0]} is no program that the docs may name")
