"""Every example runs at small size, draws where it is told to, and finds what it is there to show."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT

for name in ("jax", "torch", "flax", "optax", "sklearn", "scipy", "matplotlib", "safetensors"):
    pytest.importorskip(name, reason=f"{name} is not installed")

IMAGES = ROOT / "docs" / "images"


@pytest.fixture(autouse=True)
def images_stay() -> Iterator[None]:
    """docs/images belongs to `make examples`."""
    before = {file: file.read_bytes() for file in IMAGES.iterdir()}
    yield
    assert {file: file.read_bytes() for file in IMAGES.iterdir()} == before


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    def call(name: str, **small: Any) -> Any:
        found = importlib.import_module(name).main(tmp_path, **small)
        assert found["figure"] == tmp_path / f"{name}.png"
        assert found["figure"].read_bytes().startswith(b"\x89PNG")
        return found

    return call


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_train_digits(run: Callable[..., Any], capsys: pytest.CaptureFixture[str], framework: str) -> None:
    found = run(f"train_digits_{framework}", epochs=8, patience=3)
    history = found["history"]
    assert history[-1].data < history[0].data
    assert found["accuracy"] > 0.5
    assert found["restored"] == pytest.approx(history[found["best"]].valid, rel=1e-5)
    # the loss line: each of the four terms is a number of its own, and they make up the loss
    first = capsys.readouterr().out.splitlines()[0]
    words = first.split("|")[0].replace("=", " ").replace("+", " ").split()
    numbers = {key: float(value) for key, value in zip(words[::2], words[1::2], strict=True)}
    assert list(numbers) == ["epoch", "loss", "data", "l1w", "l1b", "l2w", "l2b"]
    parts = sum(numbers[name] for name in ("data", "l1w", "l1b", "l2w", "l2b"))
    assert numbers["loss"] == pytest.approx(parts, abs=3e-4)
    assert numbers["l1w"] > 0
    assert numbers["l2w"] > 0


def test_terms_of_the_loss() -> None:
    """Strengths.terms against NumPy: weights and biases apart."""
    import torch

    import digits
    from fused_penalty.torch import sums

    rng = np.random.default_rng(0)
    arrays = {"0.weight": rng.standard_normal((4, 3)), "0.bias": rng.standard_normal(4), "1.weight": np.ones((2, 2))}
    strengths = digits.Strengths(l1w=0.1, l1b=0.2, l2w=0.3, l2b=0.4)
    found = strengths.terms(sums({k: torch.from_numpy(x) for k, x in arrays.items()}))
    weights, bias = np.concatenate([arrays["0.weight"].ravel(), np.ones(4)]), arrays["0.bias"]
    expected = (0.1 * abs(weights).sum(), 0.2 * abs(bias).sum(), 0.3 * (weights**2).sum(), 0.4 * (bias**2).sum())
    assert list(found.values()) == pytest.approx(expected)


def test_augmentation_and_early_stopping() -> None:
    import digits

    images = np.zeros((20, 8, 8), np.float32)
    images[:, 3:5, 3:5] = 1
    found = digits.augment(images, np.random.default_rng(0))
    assert found.shape == images.shape
    assert (found != images).any(axis=(1, 2)).all()
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 4, rtol=0.35)  # moved and turned, not lost
    stopping, kept = digits.EarlyStopping(2, lambda x: list(x)), [0]
    for epoch, loss in enumerate((3.0, 1.0, 2.0)):
        assert not stopping.stop(epoch, loss, kept)
        kept[0] = epoch + 1
    assert stopping.stop(3, 1.5, kept)
    assert (stopping.best, stopping.epoch) == ([1], 1)


def test_weight_histograms(run: Callable[..., Any]) -> None:
    found = run("weight_histograms", steps=400)
    assert max(found["rules"].values()) < 1e-6
    networks = found["networks"]
    assert networks["L1, proximal"]["zero"] > 0.05
    assert networks["L1"]["zero"] < 0.01
    assert networks["L1"]["near zero"] > 2 * networks["no penalty"]["near zero"]


def test_loss_landscape(run: Callable[..., Any]) -> None:
    ends = run("loss_landscape", steps=40, grid=21)["ends"]
    assert ends["L1, proximal"][1] == 0
    assert ends["L1, gradient"][1] != 0
    assert np.linalg.norm(ends["L2"]) < np.linalg.norm(ends["no penalty"])


def test_l1_and_adam(run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = run("l1_and_adam", steps=1500)
    ends = {name: (r.excess[-1], r.zeros[-1]) for name, r in found["runs"].items()}
    assert found["zeros"] == 54
    for name in ("SGD, prox", "proximal_adamw", "momentum, proximal_sgd"):
        assert ends[name][0] < 1e-12
        assert ends[name][1] == 54
    for name in ("AdamW, euclidean prox", "AdamW, subgradient", "momentum, prox of length lr"):
        assert ends[name][0] > 1e-3
        assert ends[name][1] < 45
    # the page has what the full example prints; the optimum does not depend on the number of steps
    page = (ROOT / "docs" / "l1_and_adam.md").read_text()
    assert capsys.readouterr().out.splitlines()[0] in page
    assert all(f"\n    {name}  " in page for name in ends)


def test_torch7_callback(run: Callable[..., Any]) -> None:
    found = run("torch7_callback", epochs=15, l1=1e-3)
    plain, shrunk = found["networks"]["no callback"], found["networks"]["regularize_"]
    assert shrunk["zeros"] > 0.2
    assert plain["zeros"] == 0
    assert shrunk["abs"] < plain["abs"]
    assert found["log"][-1] < found["log"][0]


def test_tensorflow_style(run: Callable[..., Any]) -> None:
    found = run("tensorflow_style", steps=60, points=3)
    half = found["half"]
    assert half["ours"] == pytest.approx(half["by hand"], rel=1e-6)
    assert half["one by one"] == pytest.approx(half["by hand"], rel=1e-6)
    assert found["training"][0] > found["training"][-1]


def test_finetune_minilm(run: Callable[..., Any]) -> None:
    minilm = importlib.import_module("minilm")
    if minilm.folder() is None:
        pytest.skip(f"MiniLM is not installed: {minilm.INSTALL}")
    found = run(
        "finetune_minilm", thresholds=(0.005, 0.02), anchored={"none": (0.0,), "l2": (1.0,), "l1": (0.5,)}, steps=3
    )
    weak, strong = found["sparse"]["soft"]
    assert 0.05 < weak.changed < strong.changed < 0.5
    assert 1 > weak.cosine > strong.cosine
    free, near, sparse = (found["tuned"][kind][0] for kind in ("none", "l2", "l1"))
    assert sparse.changed < 0.9 < free.changed
    assert free.cosine < min(near.cosine, sparse.cosine) <= 1


def test_minilm_embeds() -> None:
    """The cosines that sentence-transformers documents for these sentences."""
    minilm = importlib.import_module("minilm")
    if minilm.folder() is None:
        pytest.skip(f"MiniLM is not installed: {minilm.INSTALL}")
    texts = ("That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day")
    found = minilm.embed(minilm.load(), *minilm.tokenize(texts))
    np.testing.assert_allclose(found @ found[0], [1, 0.695, 0.943, 0.257], atol=1e-3)
