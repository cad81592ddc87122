"""`inspect` on folders, sharded checkpoints, several of them, and one against another."""

from __future__ import annotations

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

for name in ("torch", "rich", "safetensors", "matplotlib"):
    pytest.importorskip(name, reason=f"{name} is not installed")

import torch
from rich.console import Console
from safetensors.torch import save_file

import fused_penalty.checkpoint.report as reader
from fused_penalty.__main__ import main
from fused_penalty.checkpoint import summary, view

SHARDS = {
    "model-00001-of-00002.safetensors": {"layers.0.weight": torch.full((2, 3), 2.0), "layers.0.bias": torch.zeros(3)},
    "model-00002-of-00002.safetensors": {"layers.1.weight": torch.full((4,), -1.0, dtype=torch.float64)},
}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sharded checkpoint, and beside it the same weights in one file, as some models have them."""
    names = {}
    for file, leaves in SHARDS.items():
        save_file(leaves, tmp_path / file)
        names.update(dict.fromkeys(leaves, file))
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    save_file({k: x for leaves in SHARDS.values() for k, x in leaves.items()}, tmp_path / "consolidated.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def as_json(capsys: pytest.CaptureFixture[str], *arguments: Any, status: int = 0) -> Any:
    assert main(["inspect", *map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def fails(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main(["inspect", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_sharded_checkpoint(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its folder, by its index, as the one file: the same, also where batches end within a shard."""
    for batch in (reader.BATCH, 16):
        monkeypatch.setattr(reader, "BATCH", batch)
        for path in (folder, folder / INDEX, folder / "consolidated.safetensors"):
            found = as_json(capsys, path, "--sort", "path")
            assert [row["path"] for row in found["leaves"]] == ["layers.0.bias", "layers.0.weight", "layers.1.weight"]
            assert [row["abs"] for row in found["leaves"]] == [0, 12, 4]
            assert (found["total"]["leaves"], found["total"]["zeros"], found["file"]) == (3, 3, str(path))


def test_a_folder_without_an_index(folder: Path, capsys: Any) -> None:
    (folder / INDEX).unlink()
    assert "consolidated.safetensors and model-00002-of-00002.safetensors both have a leaf" in fails(capsys, folder)
    (folder / "consolidated.safetensors").unlink()
    assert as_json(capsys, folder)["total"]["abs"] == 16


def test_what_is_wrong_with_an_index(folder: Path, capsys: Any) -> None:
    assert (
        "config.json is not the index of a sharded checkpoint (it has no weight_map). Give a .safetensors file"
        in fails(capsys, folder / "config.json")
    )
    for text in ("[]", "{", '{"weight_map": {}}', '{"weight_map": {"w": 1}}', '{"weight_map": []}', "[" * 100_000):
        (folder / "config.json").write_text(text)
        assert "is not the index" in fails(capsys, folder / "config.json")
    for name in ("../x.safetensors", "/etc/passwd", "a/b", "..", ""):
        (folder / "config.json").write_text(json.dumps({"weight_map": {"w": name}}))
        assert "which is not beside it" in fails(capsys, folder / "config.json")
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert f"{INDEX} names model-00002-of-00002.safetensors, which is not beside it. Fetch the" in fails(capsys, folder)
    (folder / "second.safetensors.index.json").write_text("{}")
    assert f"has 2 indices: {INDEX}, second.safetensors.index.json. Give one of them" in fails(capsys, folder)


def test_several_are_several_tables(folder: Path, capsys: Any) -> None:
    paths = [folder / name for name in SHARDS]
    assert [found["total"]["abs"] for found in as_json(capsys, *paths)] == [12, 4]
    assert main(["inspect", *map(str, paths)]) == 0
    assert capsys.readouterr().out.count("total of") == 2
    for option in ("--against", "--plot"):
        with pytest.raises(SystemExit) as stopped:
            main(["inspect", *map(str, paths), option, "x.png"])
        assert stopped.value.code == 2
        assert f"{option} takes one PATH, and 2 are given" in capsys.readouterr().err


def test_a_difference(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Leaf by leaf, in the wider dtype; what has no twin is skipped, with the reason."""
    other = tmp_path / "other.safetensors"
    save_file(
        {
            "layers.0.weight": torch.full((2, 3), 1.5, dtype=torch.float8_e4m3fn),
            "layers.0.bias": torch.zeros(4),
            "layers.1.weight": torch.tensor([-1.0, -1.0, -1.0, -3.0], dtype=torch.float64),
            "head": torch.ones(2),
        },
        other,
    )
    found = as_json(capsys, folder, "--against", other)
    rows = {row["path"]: row for row in found["leaves"]}
    assert rows["layers.0.weight"]["abs"] == 3
    assert rows["layers.0.weight"]["dtype"] == "F32-F8_E4M3"
    assert (rows["layers.1.weight"]["max"], rows["layers.1.weight"]["zeros"]) == (2, 3)
    assert {s["path"]: s["reason"] for s in found["skipped"]} == {
        "layers.0.bias": "its shape is [4] in the second",
        "head": "only in the second",
    }
    assert found["against"] == str(other)
    assert as_json(capsys, folder, "--against", folder)["total"]["abs"] == 0
    assert main(["inspect", str(folder), "--against", str(other), "--plot", str(tmp_path / "p.svg")]) == 0
    assert f"{folder} - {other}\n" in capsys.readouterr().out


def test_check(folder: Path, capsys: Any) -> None:
    assert main(["inspect", str(folder), "--check"]) == 0
    save_file({f"w{i}": torch.tensor([math.nan, 1.0]) for i in range(12)}, folder / "bad.safetensors")
    capsys.readouterr()
    assert main(["inspect", str(folder), str(folder / "bad.safetensors"), "--check", "--depth", "0"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == f"non-finite: {folder / 'bad.safetensors'}: w0: 1 of 2 numbers"
    assert errors[-1] == "non-finite: and 2 more leaves"
    assert as_json(capsys, folder / "bad.safetensors", "--check", status=1)["total"]["nonfinite"] == 12


def test_depth(folder: Path, capsys: Any) -> None:
    rows = as_json(capsys, folder, "--depth", 2)["leaves"]
    assert [(r["path"], r["leaves"], r["dtype"], r["shape"], r["abs"]) for r in rows] == [
        ("layers.0.*", 2, "F32", None, 12), ("layers.1.*", 1, "F64", None, 4),
    ]  # fmt: skip
    (row,) = as_json(capsys, folder, "--depth", 0)["leaves"]
    assert (row["path"], row["dtype"], row["size"]) == ("*", "mixed", 13)
    with pytest.raises(SystemExit):
        main(["inspect", str(folder), "--depth", "-1"])


def many(file: Path, names: list[str]) -> Path:
    header = {n: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, n in enumerate(names)}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<f", 2.0) * len(names))
    return file


def test_more_leaves_than_one_reads(tmp_path: Path, capsys: Any) -> None:
    """They are grouped as finely as possible; where their paths tell no groups, the first are shown."""
    deep = many(tmp_path / "deep.safetensors", [f"a.{i % 20}.{i}.w" for i in range(2 * summary.ROWS)])
    assert main(["inspect", str(deep), "--plot", str(tmp_path / "p.png")]) == 0
    text = capsys.readouterr().out
    assert "│ a.19.* " in text
    assert "2,000 leaves in groups whose paths begin alike" in text
    assert len(as_json(capsys, deep)["leaves"]) == 2 * summary.ROWS
    flat = many(tmp_path / "flat.safetensors", [f"w{i}" for i in range(summary.ROWS + 5)])
    assert main(["inspect", str(flat)]) == 0
    text = capsys.readouterr().out
    assert "│ total of 1,005 " in text
    assert "and 5 more: --depth groups them" in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_terminal(tmp_path: Path, width: int) -> None:
    """No number is cut, and of a path at least 28 characters stand in one line at 80 columns."""
    path = "encoder.layer.0.attention.output.LayerNorm.weight"
    save_file(
        {path: torch.full((300, 1000), 1.23456e-5), "w": torch.tensor([0.0, math.inf])}, tmp_path / "m.safetensors"
    )
    report = reader.inspect(tmp_path / "m.safetensors")
    console = Console(width=width, record=True, file=io.StringIO())
    view.show(report, console)
    lines = console.export_text().splitlines()[1:]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert ("300×1000" in text, "300,000" in text) == (width >= 100, width == 200)
    assert "1.23" in text
    assert "50.0%" in text
    assert width < 80 or path[:28] in text
