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


def right(verb: str, params: dict[str, Any]) -> dict[str, Any]:
    """The arguments, of which a case changes one."""
    if verb == "clip_grad_norm_":
        return {"parameters": list(params.values()), "max_norm": 0.5}
    strengths = {} if verb in misuse.NO_STRENGTHS else {"l1": 0.5, "l2": 0.5}
    return {"params": params, **strengths}


def names(argument: str) -> re.Pattern[str]:
    """argument[ at 'path']: what is wrong. What to do"""
    return re.compile(rf"^{argument}( at '[^']*')?: \S.*[^.]\. [A-Z]\S* \S", re.DOTALL)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_misuse(case: misuse.Case) -> None:
    lib = LIBS[case.framework]
    params = good(lib)
    arguments = right(case.verb, params) | {case.argument: case.wrong(lib)}
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        getattr(lib.verbs, case.verb)(**arguments)
    assert type(caught.value) in (TypeError, ValueError, RuntimeError), repr(caught.value)
    assert names(case.argument).match(str(caught.value)), str(caught.value)
    if case.verb in misuse.IN_PLACE:
        for x, before in zip(params.values(), good(lib).values(), strict=True):
            assert x.equal(before)
            assert x.grad.equal(before.grad)


def test_what_is_right_is_not_refused() -> None:
    """The call that all cases change in one argument."""
    for framework in misuse.VERBS:
        for verb in {case.verb for case in CASES if case.framework == framework}:
            getattr(LIBS[framework].verbs, verb)(**right(verb, good(LIBS[framework])))


def test_there_are_many() -> None:
    assert len({str(case) for case in CASES}) == len(CASES) > 400
