"""Every verb under every mode that JAX can be switched to: the right numbers, or a refusal that says what to do.

`MODES` is what docs/reliability.md prints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp
from jax import export
from jax.sharding import AxisType

from fused_penalty.jax import penalty, penalty_and_grad, prox, stats, sums
from tests.jax_only.mode_transformations import TARGET, TRANSFORMATIONS
from tests.jax_only.modes import ANCHOR, L1, L2, PARAMS, VERBS, Tree, close
from tests.support import oracle
from tests.support.fresh import run_fresh
from tests.support.frontends import DTYPES

MODES: dict[str, str] = {
    "jax.disable_jit": "right",
    "jax.debug_nans": "right",
    "jax.debug_infs": "right",
    "jax.numpy_dtype_promotion('strict')": "right",
    "jax.numpy_rank_promotion('raise')": "right",
    "jax.enable_x64": "right",
    "jax.checking_leaks": "right",
    "jax.default_matmul_precision('highest')": "right",
    "jax.default_device": "right",
    "jax.set_mesh, automatic axes": "right",
    "jax.set_mesh, explicit axes": "right",
    "jax.transfer_guard('disallow')": "right",
    "jax.transfer_guard('disallow'), jax.grad or optax outside jit": (
        "refused: JAX and optax make transfers of their own there; put the step into jax.jit"
    ),
    "jax.transfer_guard('disallow_explicit')": (
        "refused: a static strength is put on the device at its first call; make it a device scalar before"
    ),
    "jax.jit": "right",
    "jax.jit, donated parameters": "right",
    "jax.vmap": "right",
    "jax.lax.scan": "right",
    "jax.checkpoint": "right",
    "jax.eval_shape": "right",
    "jax.make_jaxpr": "right",
    "jax.linearize": "right",
    "jax.custom_vjp around it": "right",
    "jax.export": "right",
    "jax.export, symbolic shapes": "refused: a launch is planned for sizes; export for each shape",
}


# Switches: the arrays are made and the verb is called under them.


def _mesh(kind: Any) -> Any:
    return jax.set_mesh(jax.make_mesh((8,), ("x",), axis_types=(kind,)))


SWITCHES: dict[str, Callable[[], Any]] = {
    "jax.disable_jit": lambda: jax.disable_jit(),
    "jax.debug_nans": lambda: jax.debug_nans(True),
    "jax.debug_infs": lambda: jax.debug_infs(True),
    "jax.numpy_dtype_promotion('strict')": lambda: jax.numpy_dtype_promotion("strict"),
    "jax.numpy_rank_promotion('raise')": lambda: jax.numpy_rank_promotion("raise"),
    "jax.enable_x64": lambda: jax.enable_x64(True),
    "jax.checking_leaks": lambda: jax.checking_leaks(),
    "jax.default_matmul_precision('highest')": lambda: jax.default_matmul_precision("highest"),
    "jax.default_device": lambda: jax.default_device(jax.devices("cpu")[1]),
    "jax.set_mesh, automatic axes": lambda: _mesh(AxisType.Auto),
    "jax.set_mesh, explicit axes": lambda: _mesh(AxisType.Explicit),
    "jax.transfer_guard('disallow')": lambda: jax.transfer_guard("disallow"),
}
# they make transfers outside jit
BY_THEMSELVES = {
    "grad of penalty", *(v for v in VERBS if v.startswith("opt") and v != "optax.clip_by_global_norm"),
}  # fmt: skip


def put(tree: Tree, mode: str) -> Tree:
    if "set_mesh" not in mode:
        return jax.device_put(tree)
    specs = {"b": jax.P("x"), "w": jax.P("x", None)}
    mesh = jax.sharding.get_mesh()
    return {k: jax.device_put(x, jax.sharding.NamedSharding(mesh, specs[k])) for k, x in tree.items()}


FOR_REFERENCE = {  # what plain jnp may trip over; the optax transformations and L1L2 take no backend
    "jax.disable_jit", "jax.debug_nans", "jax.numpy_dtype_promotion('strict')", "jax.numpy_rank_promotion('raise')",
    "jax.enable_x64", "jax.transfer_guard('disallow')",
}  # fmt: skip
# The transformations of optax are elementwise jnp: what is left out here is about launches, or about JAX itself.
NOT_FOR_OPTAX = {
    "jax.debug_infs", "jax.numpy_rank_promotion('raise')", "jax.checking_leaks",
    "jax.default_matmul_precision('highest')", "jax.default_device", "jax.set_mesh, explicit axes", "jax.eval_shape",
    "jax.make_jaxpr", "jax.custom_vjp around it", "jax.export", "jax.linearize",
}  # fmt: skip


def concerned(mode: str, verb: str) -> bool:
    return not (verb.startswith("optax.") and mode in NOT_FOR_OPTAX)


ADAM_STRICT = ("jax.numpy_dtype_promotion('strict')", "optax.proximal_adamw")  # optax.adamw itself is refused there
CASES = [
    (mode, verb, "cpu") for mode in SWITCHES for verb in VERBS if concerned(mode, verb) and (mode, verb) != ADAM_STRICT
] + [(mode, verb, "reference") for mode in sorted(FOR_REFERENCE) for verb in list(VERBS)[:8]]


@pytest.mark.parametrize(("mode", "verb", "backend"), CASES)
def test_switch(mode: str, verb: str, backend: str) -> None:
    assert MODES[mode] == "right"
    call, expected = VERBS[verb]
    f = lambda p, a: call(p, a, backend)  # noqa: E731
    with SWITCHES[mode]():
        p, a = put(PARAMS, mode), put(ANCHOR, mode)
        found = (jax.jit(f) if "guard" in mode and verb in BY_THEMSELVES else f)(p, a)
    close(found, expected(PARAMS, ANCHOR))


def test_optax_refuses_adam_under_strict_promotion() -> None:
    """Not ours to mend: b2 ** count."""
    p = jax.device_put(PARAMS)
    with jax.numpy_dtype_promotion("strict"), pytest.raises(jax.dtypes.TypePromotionError):
        optax.adamw(0.1).update(p, optax.adamw(0.1).init(p), p)


def test_disable_jit_on_a_mesh_and_under_transformations() -> None:
    expected = oracle.penalty(list(PARAMS.values()), [L1] * 2, [L2] * 2)
    for kind in (AxisType.Auto, AxisType.Explicit):
        with _mesh(kind):
            p = put(PARAMS, "set_mesh")
            with jax.disable_jit():
                close(penalty(p, L1, L2), expected)
    with jax.disable_jit():
        rows = jax.tree.map(lambda x: jnp.stack([x, x]), jax.device_put(PARAMS))
        close(jax.vmap(lambda q: penalty(q, L1, L2))(rows), np.full(2, expected))


def test_an_empty_selection_and_masked_leaves_make_no_transfer() -> None:
    p = jax.device_put(PARAMS)
    with jax.transfer_guard("disallow"):
        values = penalty({}, L1), penalty_and_grad({}, L1)[0], sums({}).abs, stats({}).zeros
        _, grads = penalty_and_grad(p, L1, mask={"b": False, "w": True})
    assert [x.shape for x in values] == [(), (), (0,), (0,)]
    np.testing.assert_array_equal(grads["b"], np.zeros(16))


@pytest.mark.parametrize(("mode", "verb"), [(m, v) for m in TRANSFORMATIONS for v in VERBS if concerned(m, v)])
def test_transformation(mode: str, verb: str) -> None:
    assert MODES[mode] == "right"
    call, expected = VERBS[verb]
    found = TRANSFORMATIONS[mode](lambda p, a: call(p, a, "cpu"), jax.device_put(PARAMS), jax.device_put(ANCHOR))
    close(found, expected(PARAMS, ANCHOR))


def test_an_exported_program_runs_in_another_process(tmp_path: Any) -> None:
    checks = [export.DisabledSafetyCheck.custom_call(TARGET)]
    f = jax.jit(lambda x, l1: penalty([x], l1, 0.5))
    exported = export.export(f, disabled_checks=checks)(jnp.arange(4.0), jnp.float32(1))
    path = tmp_path / "penalty.bin"
    path.write_bytes(exported.serialize(vjp_order=1))
    found = run_fresh(f"""
        import pathlib, jax, jax.numpy as jnp
        import fused_penalty.jax  # registers the custom calls
        f = jax.export.deserialize(pathlib.Path({str(path)!r}).read_bytes()).call
        print(float(f(jnp.arange(4.0), 2.0)), jax.grad(f)(jnp.arange(4.0), 2.0).tolist())
    """)
    assert found == "19.0 [0.0, 3.0, 4.0, 5.0]"


# What is refused


def test_refused_outside_jit_under_the_transfer_guard() -> None:
    """Not ours to mend: `jax.grad(jnp.sum)` and `optax.sgd` are refused alike."""
    mode = "jax.transfer_guard('disallow'), jax.grad or optax outside jit"
    assert MODES[mode].startswith("refused: ")
    p, a = jax.device_put(PARAMS), jax.device_put(ANCHOR)
    theirs = [lambda: jax.grad(jnp.sum)(p["w"]), lambda: optax.sgd(0.1).update(p, optax.sgd(0.1).init(p), p)]
    for call in [*theirs, *(lambda v=v: VERBS[v][0](p, a, "cpu") for v in sorted(BY_THEMSELVES))]:
        with jax.transfer_guard("disallow"), pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):
            call()


def test_refused_where_explicit_transfers_are() -> None:
    assert "make it a device scalar" in MODES["jax.transfer_guard('disallow_explicit')"]
    p, strength, l2 = jax.device_put(PARAMS), jax.device_put(np.float32(0.123)), jax.device_put(np.float32(0))
    expected = oracle.penalty(list(PARAMS.values()), [0.123] * 2, [0.0] * 2)
    guard = lambda: jax.transfer_guard("disallow_explicit")  # noqa: E731
    with guard(), pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):
        penalty(p, 0.123456)
    with guard():
        found = penalty(p, strength, l2)
    close(found, expected)


def test_symbolic_shapes_are_refused() -> None:
    assert MODES["jax.export, symbolic shapes"].startswith("refused: a launch is planned for sizes")
    (n,) = export.symbolic_shape("n")
    exported = export.export(jax.jit(lambda x: penalty({"w": x}, L1)))
    with pytest.raises(ValueError, match=r"params at 'w': the shape \(n,\) is symbolic.*Export for each shape"):
        exported(jax.ShapeDtypeStruct((n,), jnp.float32))


def test_subnormal_numbers_are_flushed_on_cpu() -> None:
    """As the docstrings of `stats` and `prox` say; those of float16 are normal in float32."""
    with jax.enable_x64(True):
        for dtype, tiny, zeros in (
            ("float16", 1e-7, 1),
            ("bfloat16", 1e-40, 2),
            ("float32", 1e-40, 2),
            ("float64", 1e-310, 2),
        ):
            x = np.array([tiny, 0, 1], DTYPES[dtype])
            assert stats([x], backend="cpu").zeros.tolist() == [zeros]
            assert np.count_nonzero(np.asarray(prox([x], backend="cpu")[0])) == 3 - zeros


def test_every_mode_has_its_test() -> None:
    tested = SWITCHES.keys() | TRANSFORMATIONS.keys()
    assert {k for k, v in MODES.items() if v == "right"} == tested
    assert all(v.startswith("refused: ") for k, v in MODES.items() if k not in tested)
