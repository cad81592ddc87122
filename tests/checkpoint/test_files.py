"""`inspect`: files that are none, files that change while they are read, and pictures that cannot be written."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

for name in ("torch", "rich", "safetensors", "matplotlib"):
    pytest.importorskip(name, reason=f"{name} is not installed")

import torch
from safetensors.torch import save_file

import fused_penalty.checkpoint.report as reader
import fused_penalty.checkpoint.source as source
from fused_penalty.__main__ import main

SIZE = 64  # elements of each of the two leaves


def model(file: Path, value: float, size: int = SIZE) -> Path:
    save_file({"a": torch.full((size,), value), "b": torch.full((size,), value)}, file)
    return file


def fails(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The error, which is one line, and all that is printed."""
    assert main(["inspect", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def replace(file: Path, size: int = SIZE) -> None:
    model(file.with_suffix(".new"), 2.0, size).rename(file)


def write_over(file: Path) -> None:
    """The same size and inode."""
    content = model(file.with_suffix(".new"), 2.0).read_bytes()
    with file.open("r+b") as f:
        f.write(content)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 4 * SIZE)


def grow(file: Path) -> None:
    with file.open("ab") as f:
        f.write(b"x")


CHANGES: dict[str, Callable[[Path], None]] = {
    "replaced": replace,
    "replaced by one with shorter leaves": lambda file: replace(file, SIZE // 2),
    "replaced by a folder": lambda file: (file.unlink(), file.mkdir())[1],
    "written over": write_over,
    "cut": cut,
    "emptied": lambda file: os.truncate(file, 0),
    "longer": grow,
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, change: str, batch: int
) -> None:
    """After the first batch, the second, and the last, which leaves only the check at the end."""
    file = model(tmp_path / "m.safetensors", 1.0)
    os.utime(file, ns=(0, 0))  # so that a write within one tick of the clock shows
    monkeypatch.setattr(reader, "BATCH", 64)
    seen = []
    of_batch = reader.stats

    def stats(leaves: Any, **kw: Any) -> Any:
        found = of_batch(leaves, **kw)
        if len(seen) == batch:
            CHANGES[change](file)
        seen.append(change)
        return found

    monkeypatch.setattr(reader, "stats", stats)
    error = fails(capsys, file)
    assert error.startswith(f"error: file: {file} changed while it was read. Run this again")
    assert len(seen) == batch + 1


def test_a_file_that_is_cut_within_a_batch(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped file would kill the process here (SIGBUS)."""
    file = model(tmp_path / "m.safetensors", 1.0)
    of_piece = source._elements

    def elements(*args: Any) -> Any:
        cut(file)
        return of_piece(*args)

    monkeypatch.setattr(source, "_elements", elements)
    assert "changed while it was read" in fails(capsys, file)


def test_a_file_replaced_while_its_header_is_read(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model(tmp_path / "m.safetensors", 1.0)
    opener = source.safe_open

    def safe_open(*args: Any, **kw: Any) -> Any:
        replace(file, 2 * SIZE)
        return opener(*args, **kw)

    monkeypatch.setattr(source, "safe_open", safe_open)
    assert "changed while it was read" in fails(capsys, file)


def test_an_unchanged_file_may_be_touched_by_readers(tmp_path: Path, capsys: Any) -> None:
    """Another name and another access time are not a change."""
    file = model(tmp_path / "m.safetensors", 1.0)

    def touch(done: int, total: int) -> None:
        os.link(file, tmp_path / "other")
        os.utime(file, ns=(1, file.stat().st_mtime_ns))

    assert reader.inspect(file, touch).total.abs == 2 * SIZE


def test_what_is_not_a_file(tmp_path: Path, capsys: Any) -> None:
    assert f"file: the folder {tmp_path} has no .safetensors file. Give one that has" in fails(capsys, tmp_path)
    assert "there is no " in fails(capsys, model(tmp_path / "m.safetensors", 1.0) / "below")
    if Path("/dev/null").exists():
        assert "file: /dev/null is a device. Give a .safetensors file" in fails(capsys, "/dev/null")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "fused_penalty", "inspect", str(pipe)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: file: {pipe} is a named pipe. Give a .safetensors file")


def test_json_of_another_name(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text(json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}}))
    assert f"file: {file} is a JSON file, such as the index of a sharded checkpoint. End its" in fails(capsys, file)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read anything")
def test_a_file_that_may_not_be_read(tmp_path: Path, capsys: Any) -> None:
    file = model(tmp_path / "m.safetensors", 1.0)
    file.chmod(0)
    assert "Permission denied" in fails(capsys, file)


def test_a_disk_that_fails(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model(tmp_path / "m.safetensors", 1.0)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error", str(file))

    monkeypatch.setattr(source.Source, "read", fail)
    assert "Input/output error" in fails(capsys, file)


HEADERS: dict[str, Any] = {
    "not an object": [1, 2],
    "a list for a leaf": {"w": []},
    "no dtype": {"w": {"shape": [1], "data_offsets": [0, 4]}},
    "unknown dtype": {"w": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}},
    "negative": {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "huge": {"w": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
    "more than 64 bits": {"w": {"dtype": "F32", "shape": [2**70], "data_offsets": [0, 4]}},
    "too long": {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "too short": {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
    "backwards": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    "overlap": {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"},
    "gap": {"w": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}},
    "a text for a size": {"w": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
    "metadata that is not a mapping of texts": {"__metadata__": {"a": 1}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_header(tmp_path: Path, capsys: Any, name: str) -> None:
    text = json.dumps(HEADERS[name]).encode()
    file = tmp_path / "m.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert "is not a complete safetensors file" in fails(capsys, file)


@pytest.mark.parametrize("header", [b'{"w":' * 5000, b"{\xff}", b"{}}", b"", b"{" + b" " * 100, b'{"\\ud800": {}}'])
def test_a_header_that_is_not_json(tmp_path: Path, capsys: Any, header: bytes) -> None:
    file = tmp_path / "m.safetensors"
    for length in (len(header), 0, 2**40, 2**64 - 1):
        file.write_bytes(struct.pack("<Q", length) + header)
        assert "is not a complete safetensors file" in fails(capsys, file)


def test_leaves_of_any_order_and_alignment(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in another order than bytes, an odd header, leaves without elements, skipped bytes between."""
    header = {
        "last": {"dtype": "F32", "shape": [1], "data_offsets": [13, 17]},
        "none": {"dtype": "F64", "shape": [0], "data_offsets": [13, 13]},
        "odd": {"dtype": "U8", "shape": [3], "data_offsets": [10, 13]},
        "wide": {"dtype": "F64", "shape": [1], "data_offsets": [2, 10]},
        "half": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
    }
    text = json.dumps(header).encode()
    text += b" " * (len(text) % 2 == 0)
    file = tmp_path / "m.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<ed3sf", -0.5, 0.1, b"abc", 3.0))
    for batch in (reader.BATCH, 8):
        monkeypatch.setattr(reader, "BATCH", batch)
        rows = reader.inspect(file).rows
        assert [(r.path, r.abs, r.max) for r in rows] == [
            ("half", 0.5, 0.5), ("wide", 0.1, 0.1), ("none", 0.0, 0.0), ("last", 3.0, 3.0),
        ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_machine_that_is_big_endian(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    wanted = torch.tensor([1.0, -2.5, 1e-3], dtype=getattr(torch, dtype))
    raw = torch.from_numpy(wanted.numpy().byteswap()).view(torch.uint8)
    monkeypatch.setattr(sys, "byteorder", "big")
    assert source._elements(raw, wanted.dtype).equal(wanted)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("picture", "does not end in a format that matplotlib writes. End it in one of "),
        ("picture.xyz", "does not end in a format that matplotlib writes. End it in one of "),
        ("picture.png.", "does not end in a format"),
        ("none/picture.png", "--plot: there is no folder "),
        ("m.safetensors/picture.png", "--plot: there is no folder "),
        ("folder.png", "is a folder. Give the picture a name in it"),
    ],
)
def test_a_picture_that_cannot_be_written_is_told_before_the_file_is_read(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    file = model(tmp_path / "m.safetensors", 1.0)
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(reader, "inspect", lambda *_: pytest.fail("read before"))
    error = fails(capsys, file, "--plot", tmp_path / name)
    assert error.startswith("error: --plot: ")
    assert message in error


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
@pytest.mark.parametrize("leaves", ["none", "empty", "zeros", "nan"])
def test_a_picture_of_nothing(tmp_path: Path, capsys: Any, leaves: str, ending: str) -> None:
    """Without a warning: they are errors here."""
    tree = {"none": {}, "empty": {"w": torch.zeros(0)}, "zeros": {"w": torch.zeros(3)}}
    save_file(tree.get(leaves, {"w": torch.full((3,), torch.nan)}), tmp_path / "m.safetensors")
    picture = tmp_path / f"m.{ending}"
    assert main(["inspect", str(tmp_path / "m.safetensors"), "--plot", str(picture)]) == 0
    assert picture.stat().st_size > 0


def test_a_backend_that_is_not_here(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model(tmp_path / "m.safetensors", 1.0)
    monkeypatch.setenv("FUSED_PENALTY_BACKEND", "cuda")
    if torch.cuda.is_available():
        pytest.skip("it is here")
    assert "'cuda' is not available" in fails(capsys, file)


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    """As `| head -1` goes."""
    file = model(tmp_path / "m.safetensors", 1.0)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fused_penalty", "inspect", str(file), "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
