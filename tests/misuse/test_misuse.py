"""Every wrong call is an error that names its argument and a remedy; a refused call in place has written nothing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

for name in ("torch", "jax"):
    pytest.importorskip(name, reason=f"{name} is not installed")

from tests.misuse import cases as misuse
from tests.support import frontends

CASES = [case for framework in misuse.VERBS for case in misuse.cases(framework)]
LIBS = {framework: frontends.make((framework, "cpu")) for framework in misuse.VERBS}


def good(lib: Any) -> dict[str, Any]:
    params = lib.to({"w": np.array([1, -2, 3], np.float32), "b": np.array([4, -5], np.float32)})
    if lib.framework == "torch":
        for x in params.values():
            x.requires_grad_()
            x.grad = x.detach() * 10
    return params


def names(argument: str) -> re.Pattern[str]:
    """argument[ at 'path']: what is wrong. What to do"""
    return re.compile(rf"^{argument}( at '[^']*')?: \S.*[^.]\. [A-Z]\S* \S", re.DOTALL)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_misuse(case: misuse.Case) -> None:
    lib = LIBS[case.framework]
    params = good(lib)
    arguments: dict[str, Any] = {} if case.verb in misuse.NO_STRENGTHS else {"l1": 0.5, "l2": 0.5}
    arguments |= {"params": params, case.argument: case.wrong(lib)}
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        getattr(lib.verbs, case.verb)(arguments.pop("params"), **arguments)
    assert type(caught.value) in (TypeError, ValueError, RuntimeError), repr(caught.value)
    assert names(case.argument).match(str(caught.value)), str(caught.value)
    if case.verb in misuse.IN_PLACE:
        for x, before in zip(params.values(), good(lib).values(), strict=True):
            assert x.equal(before)
            assert x.grad.equal(before.grad)


def test_what_is_right_is_not_refused() -> None:
    """The call that all cases change in one argument."""
    for framework, verbs in misuse.VERBS.items():
        for verb in verbs:
            strengths = {} if verb in misuse.NO_STRENGTHS else {"l1": 0.5, "l2": 0.5}
            getattr(LIBS[framework].verbs, verb)(good(LIBS[framework]), **strengths)


def test_there_are_many() -> None:
    assert len({str(case) for case in CASES}) == len(CASES) > 400
