"""`inspect`: whatever a file and its leaves are called is shown as text, and does nothing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

for name in ("torch", "rich", "safetensors", "matplotlib", "hypothesis"):
    pytest.importorskip(name, reason=f"{name} is not installed")

import matplotlib as mpl
import rich.console
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fused_penalty.__main__ import main
from fused_penalty.checkpoint.names import printable

NAMES = [
    "layers[encoder].w", "w[bold]", "[/foo]", "[link=http://evil/]click[/link]", "\\[x]", "\\", "[", "a:smile:b",
    "\x1b[2J", "\x1b]0;PWNED\x07", "\x9b2J", "\r", "\n", "\t", "\b", "\x7f", "\0",
    "price$", "$x^$", "$\\frac$", "\\$", "a$b$c$d", "100%", "{x}", "é", "日本", "👩‍💻", "\u202egnp.exe", "\u2028", "",
    " spaces ", "__metadata__x", "nan",
]  # fmt: skip


def write(file: Path, names: list[str], dtypes: list[str] | None = None) -> None:
    """A leaf of one element for each name; safetensors itself would not write some of them."""
    header, start = {}, 0
    for name, dtype in zip(names, dtypes or ["F32"] * len(names), strict=True):
        header[name] = {"dtype": dtype, "shape": [1], "data_offsets": [start, start + 4]}
        start += 4
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<f", 2.0) * len(names))


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def harmless(text: str) -> bool:
    return all(c.isprintable() for line in text.split("\n") for c in line)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(tmp_path: Path, capsys: Any, name: str) -> None:
    """As the name of a leaf, of a leaf that is skipped, and in --json."""
    file = tmp_path / "m.safetensors"
    write(file, [name, f"skipped {name}"], ["F32", "I32"])
    text = run(capsys, file)
    assert harmless(text)
    assert f"│ {printable(name)} " in text
    assert f"skipped: skipped {printable(name)} (I32 [1]): no kernel" in text
    found = json.loads(run(capsys, file, "--json"))
    assert [row["path"] for row in found["leaves"]] == [name]
    assert [row["path"] for row in found["skipped"]] == [f"skipped {name}"]


def test_printable() -> None:
    assert printable("\x1b[2J\n\u202e\udcff\U000e0001") == "\\x1b[2J\\n\\u202e\\udcff\\U000e0001"
    assert printable("layers[encoder].é 日本") == "layers[encoder].é 日本"


@pytest.mark.parametrize("name", ["f[/x]", "f[bold]", "f\x1b]0;PWNED\x07", "f\n", "f:smile:", "f\udcff", "f$x^$"])
def test_the_name_of_the_file(tmp_path: Path, capsys: Any, name: str) -> None:
    file = tmp_path / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)  # one of the names is a path
    write(file, ["w"])
    text = run(capsys, file, "--plot", tmp_path / "picture.svg")
    assert harmless(text)
    assert text.startswith(printable(file) + "\n")
    assert json.loads(run(capsys, file, "--json"))["file"] == str(file)
    for content in (b"", b"{", None):
        file.unlink() if content is None else file.write_bytes(content)
        assert main(["inspect", str(file)]) == 2
        error = capsys.readouterr().err
        assert harmless(error)
        assert printable(file) in error


def test_nothing_moves_in_a_terminal(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rich writes colours, no other escape sequence comes out."""
    file = tmp_path / "m.safetensors"
    names = [f"{i}{name}" for i, name in enumerate(NAMES)]
    write(file, names, ["F32", "I32"] * (len(names) // 2) + ["F32"] * (len(names) % 2))
    console = rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **kw: console(**kw, force_terminal="stderr" not in kw))
    text = run(capsys, file)
    sequences = [part.split("m", 1)[0] for part in text.split("\x1b")[1:]]
    assert sequences  # colours
    assert all(s.startswith("[") and set(s[1:]) <= set("0123456789;") for s in sequences)
    assert "\x07" not in text


ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)  # JSON in UTF-8 holds no lone surrogates
BRACKETS = st.text(st.sampled_from("[]/\\$:{}%^_=\x1b\x9b\n\r\t\0 abold#\u202e\u200d👩💻é日"), max_size=12)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY | BRACKETS, min_size=1, max_size=5, unique=True))
@example(NAMES)
def test_any_names(tmp_path: Path, capsys: Any, names: list[str]) -> None:
    names = [name for name in names if name != "__metadata__"]
    file = tmp_path / "m.safetensors"
    write(file, names)
    text = run(capsys, file)
    assert harmless(text)
    for name in names:
        assert f"│ {printable(name)} " in text
    assert [row["path"] for row in json.loads(run(capsys, file, "--json"))["leaves"]] == names


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY | BRACKETS, min_size=1, max_size=5, unique=True))
@example(NAMES)
def test_any_names_in_a_picture(tmp_path: Path, capsys: Any, names: list[str]) -> None:
    """SVG, whose text is XML."""
    write(tmp_path / "m.safetensors", [name for name in names if name != "__metadata__"])
    run(capsys, tmp_path / "m.safetensors", "--plot", tmp_path / "m.svg")


def test_dollars_are_dollars_in_a_picture(tmp_path: Path, capsys: Any) -> None:
    from xml.etree import ElementTree

    file = tmp_path / "a$x^2$.safetensors"
    names = ["$x^2$", "a$b", "\\$", "\\alpha"]
    write(file, names)
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        run(capsys, file, "--plot", tmp_path / "m.svg")
    texts = [e.text for e in ElementTree.parse(tmp_path / "m.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {*names, file.name} <= set(texts)
