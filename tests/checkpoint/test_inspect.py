"""`python -m fused_penalty inspect`: a checkpoint's leaves, through the command line."""

from __future__ import annotations

import json
import math
import struct
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for name in ("torch", "rich", "safetensors", "matplotlib"):
    pytest.importorskip(name, reason=f"{name} is not installed")

import torch
from safetensors.torch import load_file, save_file

import fused_penalty.checkpoint.report as reader
from benchmarks.models import weights
from fused_penalty.__main__ import main
from tests.support.fresh import hiding, run_fresh

TREE = {
    "layer.0.weight": torch.linspace(-2, 2, 33).reshape(3, 11),
    "layer.0.bias": torch.tensor([0.0, -0.0, 1e-3]),
    "layer.1.weight": torch.randn(200, 100, generator=torch.manual_seed(0)).to(torch.bfloat16),
    "half": torch.tensor([0.5, -1.5], dtype=torch.float16),
    "wide": torch.full((7,), 1e200, dtype=torch.float64),
    "bad": torch.tensor([1.0, math.nan, math.inf, -math.inf, 0.0]),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(-3.0),
    "ids": torch.arange(5),
    "float8": torch.linspace(-3, 3, 40).to(torch.float8_e4m3fn),
    "float8 of another kind": torch.linspace(-3, 3, 33).to(torch.float8_e5m2),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TREE, path)
    return path


def as_json(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def expected(x: torch.Tensor) -> dict[str, float]:
    d = np.abs(x.double().numpy()).ravel()
    with np.errstate(over="ignore"):
        sums = {"abs": d.sum(), "square": (d * d).sum(), "max": d.max(initial=0)}
    return sums | {"zeros": np.sum(d == 0), "nonfinite": np.sum(~np.isfinite(d)), "size": d.size}


def check(found: dict[str, Any], x: torch.Tensor) -> None:
    for name, value in expected(x).items():
        np.testing.assert_allclose(float(found[name]), value, rtol=1e-6, err_msg=f"{found['path']}: {name}")


@pytest.mark.parametrize("batch", [64, 4096, reader.BATCH])
def test_every_leaf(file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """The same in one batch and in batches of 64 bytes, which cut leaves into pieces."""
    monkeypatch.setattr(reader, "BATCH", batch)
    report = as_json(capsys, file)
    leaves = {row["path"]: row for row in report["leaves"]}
    assert leaves.keys() | {"ids"} == TREE.keys()
    for path, row in leaves.items():
        assert row["shape"] == list(TREE[path].shape)
        check(row, TREE[path])
    assert {(s["path"], s["dtype"]) for s in report["skipped"]} == {("ids", "I64")}
    assert all("no kernel for this dtype" in s["reason"] for s in report["skipped"])


def test_total(tmp_path: Path, capsys: Any) -> None:
    tree = {k: x for k, x in TREE.items() if k.startswith("layer")}
    save_file(tree, tmp_path / "m.safetensors")
    check(
        as_json(capsys, tmp_path / "m.safetensors")["total"] | {"path": "total"},
        torch.cat([x.float().ravel() for x in tree.values()]),
    )


def test_table(file: Path, capsys: Any) -> None:
    assert main(["inspect", str(file)]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "3×11" in lines["layer.0.weight"]
    assert "2 (66.7%)" in lines["layer.0.bias"]
    assert "nan" in lines["bad"]
    assert "20,000" in lines["layer.1.weight"]
    assert f"{sum(x.numel() for k, x in TREE.items() if k != 'ids'):,}" in lines["total"]
    assert "skipped: ids (I64 [5]): no kernel for this dtype" in text


def test_sort(file: Path, capsys: Any) -> None:
    def order(by: str) -> list[str]:
        return [row["path"] for row in as_json(capsys, file, "--sort", by)["leaves"]]

    assert order("path") == sorted(TREE.keys() - {"ids"})
    assert order("size")[0] == "layer.1.weight"
    assert order("max")[:2] == ["bad", "wide"]  # NaN first
    with pytest.raises(SystemExit):
        main(["inspect", str(file), "--sort", "colour"])


def test_plot(file: Path, tmp_path: Path, capsys: Any) -> None:
    picture = tmp_path / "picture.png"
    assert main(["inspect", str(file), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_clear_errors(file: Path, tmp_path: Path, capsys: Any) -> None:
    whole = file.read_bytes()
    cases = {
        "missing": (None, "there is no"),
        "cut": (whole[:-10], "is not a complete safetensors file"),
        "header": (whole[:50], "is not a complete safetensors file"),
        "empty": (b"", "is not a complete safetensors file"),
        "zip": (b"PK\x03\x04" + bytes(200), "is not a complete safetensors file"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        if content is not None:
            path.write_bytes(content)
        assert main(["inspect", str(path)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: file: {path}" if content is not None else "error: file: there is no")
        assert message in printed.err


@pytest.mark.parametrize("name", ["rich", "safetensors", "torch", "matplotlib"])
def test_without_the_extra_the_message_names_it(file: Path, name: str) -> None:
    found = run_fresh(
        hiding(name)
        + textwrap.dedent(f"""
            import contextlib, io
            from fused_penalty.__main__ import main
            with contextlib.redirect_stderr(io.StringIO()) as printed:
                assert main(["inspect", {str(file)!r}, "--plot", {str(file.with_suffix(".png"))!r}]) == 2
            print(printed.getvalue())
        """)
    )
    assert found == f'error: {name} is not installed: pip install "fused-penalty[inspect]"'


def test_never_the_model_whole(tmp_path: Path) -> None:
    """256 MiB of weights, most of them in one leaf, in memory 16 MiB at a time."""
    sizes = {"small": 1 << 22, "large": 15 << 22}
    header, start = {}, 0
    for path, size in sizes.items():
        header[path] = {"dtype": "F32", "shape": [size], "data_offsets": [start, start := start + 4 * size]}
    text = json.dumps(header).encode()
    file = tmp_path / "large.safetensors"
    with file.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + start)  # zeros without blocks on the disk
    grown, zeros = run_fresh(f"""
        import resource
        from pathlib import Path
        import fused_penalty.checkpoint.report as reader
        reader.BATCH = 1 << 24
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = reader.inspect(Path({str(file)!r}))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, report.total.zeros)
    """).split()
    assert int(zeros) == sum(sizes.values())
    assert int(grown) * 1024 < 64 << 20  # a batch, its mapping's neighbours, and what the first launch loads


def test_a_real_model(capsys: Any) -> None:
    file, why = weights.minilm_file()
    if file is None:
        pytest.skip(why)
    found = {row["path"]: row for row in as_json(capsys, file)["leaves"]}
    leaves = load_file(file)
    assert len(found) == 103
    for path in ("embeddings.word_embeddings.weight", "pooler.dense.bias"):
        check(found[path], leaves[path])
