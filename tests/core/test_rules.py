"""Rules over paths as people know them: defaults, regular expressions, wrappers, norms and biases, masks."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest

import fused_penalty as fp
from fused_penalty._core.paths import unwrapped
from tests.support.frontends import Frontend

ONES = np.ones((2, 2), np.float32)
TREE = {
    "module": {
        "encoder": {"_orig_mod": {"kernel": ONES, "in_proj_bias": ONES, "layer_norm": {"scale": ONES}}},
        "head": {"kernel": ONES, "ln_1": {"weight": ONES}, "weight_norm": {"g": ONES}, "gain": np.ones(4, np.float32)},
    }
}
LEAVES = ("kernel", "in_proj_bias", "layer_norm.scale", "head.kernel", "head.ln_1", "head.weight_norm", "gain")


def run(frontend: Frontend, l1: Any, **kw: Any) -> float:
    """A leaf of strength s adds 4·s."""
    return float(frontend.verbs.penalty(frontend.to(TREE), l1, backend=frontend.backend, **kw)) / 4


def test_default(frontend: Frontend) -> None:
    assert run(frontend, fp.by_path({"*bias": 10.0, "*norm*": 0.0}, default=1.0)) == 14
    assert run(frontend, fp.by_path({}, default=0.5)) == 3.5
    with pytest.raises(
        ValueError, match=r"^l1 at '.*': no pattern of by_path matches .* a last pattern \"\*\", or def"
    ):
        run(frontend, fp.by_path({"*bias": 10.0}))
    with pytest.raises(ValueError, match=r"by_path pattern 'kernal', '\^heed' is the first match of no leaf"):
        run(frontend, fp.by_path({"kernal": 0.0, re.compile("^heed"): 1.0}, default=1.0))


def test_regular_expressions(frontend: Frontend) -> None:
    rule = fp.by_path({re.compile(r"\.kernel$"): 1.0, re.compile("BIAS", re.IGNORECASE): 10.0, "*": 0.0})
    assert run(frontend, rule) == 12
    assert len({rule, copy.copy(rule), pickle.loads(pickle.dumps(rule))}) == 1  # hashable, so static under jit


def test_the_steps_of_wrappers_may_be_left_out(frontend: Frontend) -> None:
    for pattern in ("encoder.kernel", "module.encoder._orig_mod.kernel", re.compile("^encoder.kernel$")):
        assert run(frontend, fp.by_path({pattern: 1.0}, default=0.0)) == 1
    assert [unwrapped(p) for p in ("module.module.w", "_orig_mod.module.a.module.w", "module", "modules.w")] == [
        "w", "a.module.w", "", "modules.w",
    ]  # fmt: skip


def test_no_decay_by_names(frontend: Frontend) -> None:
    assert run(frontend, 1.0, mask=fp.no_decay_on_norms_and_biases()) == 3  # kernels, and weight_norm
    assert run(frontend, fp.no_decay_on_norms_and_biases(0.5)) == 1.5
    assert run(frontend, 1.0, mask=fp.no_decay_on_norms_and_biases(also=["head.kernel", re.compile("_norm")])) == 1
    with pytest.raises(TypeError, match=r"^l1: no_decay_on_norms_and_biases\(\) without a strength is a mask"):
        run(frontend, fp.no_decay_on_norms_and_biases())


def test_rules_are_masks_too(frontend: Frontend) -> None:
    assert run(frontend, 1.0, mask=fp.by_path({"head*": False}, default=True)) == 3
    assert run(frontend, 1.0, mask=fp.by_leaf(lambda path, leaf: leaf.ndim == 1)) == 1
    with pytest.raises(TypeError, match=r"^mask at '.*': 1\.0 is not a static bool"):
        run(frontend, 1.0, mask=fp.by_path({"*": 1.0}))


def test_in_a_regularizer() -> None:
    rule = fp.by_path({"*bias": 0.0}, default=1.0)
    again = fp.L1L2.from_config(fp.L1L2(l1=rule).get_config())
    assert again == fp.L1L2(l1=rule)
    assert repr(again) == "L1L2(l1=by_path({'*bias': 0.0}, default=1.0), l2=0.0)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fp.by_path({b"*": 1.0}), r"^patterns: \{b'\*': 1\.0\} is not a mapping from pattern to strength"),
        (lambda: fp.by_path({re.compile(b"x"): 1.0}), "^patterns: "),
        (lambda: fp.by_type({"LayerNorm": 0.0}), r"^types: .*Write by_type\(\{nn\.LayerNorm"),
        (lambda: fp.by_type([int]), "^types: "),
        (lambda: fp.no_decay_on_norms_and_biases(also="*embed"), r"^also: '\*embed' is not an iterable of patterns"),
        (lambda: fp.no_decay_on_norms_and_biases(also=[1]), "^also: "),
    ],
)
def test_bad_rules(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()
