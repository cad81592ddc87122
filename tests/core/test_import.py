"""What importing costs, and what happens where something is not installed or not built."""

from __future__ import annotations

import textwrap

from tests.support.fresh import hiding, run_fresh


def test_import_is_light() -> None:
    heavy = "{'jax', 'torch', 'keras', 'lightning', 'transformers'}"
    code = f"import sys, fused_penalty; fused_penalty.L1L2(0.1); print(sorted({heavy} & set(sys.modules)))"
    assert run_fresh(code) == "[]"


def test_what_takes_seconds_is_imported_when_it_is_needed() -> None:
    """torch._dynamo, by what is compiled; NumPy, by the first strength."""
    light = "print(sorted({'numpy', 'jax', 'torch'} & set(sys.modules)))"
    assert run_fresh(f"import sys, fused_penalty as fp; fp.by_path({{'*': 0.0}}); {light}") == "[]"
    assert run_fresh("""
        import sys, torch
        before = set(sys.modules)
        import fused_penalty as fp
        import fused_penalty.torch, fused_penalty.torch.optim
        fused_penalty.torch.penalty([torch.ones(3, requires_grad=True)], 1.0, 1.0).backward()
        print(sorted(m for m in set(sys.modules) - before if m.startswith(("torch._dynamo", "torch._inductor"))))
    """) == "[]"  # fmt: skip


def test_a_regularizer_imports_only_the_framework_it_meets() -> None:
    assert run_fresh("""
        import sys, torch, fused_penalty as fp
        assert float(fp.L1(1.0)([torch.ones(3)])) == 3.0
        print("jax" in sys.modules)
    """) == "False"  # fmt: skip
    assert run_fresh("""
        import sys, jax.numpy as jnp, fused_penalty as fp
        assert float(fp.L1(1.0)([jnp.ones(3)])) == 3.0
        print("torch" in sys.modules)
    """) == "False"  # fmt: skip


def test_without_the_native_module_the_reference_runs() -> None:
    """With one warning in a process, at the first call that did not ask for it."""
    for framework, ones in (("jax", "jax.numpy.ones(3)"), ("torch", "torch.ones(3)")):
        found = run_fresh(
            hiding("fused_penalty._cpu")
            + textwrap.dedent(f"""
                import warnings, {framework}, fused_penalty as fp
                from fused_penalty.{framework} import penalty, penalty_and_grad, sums
                x = {ones}
                assert float(penalty([x], 1.0, 1.0, backend="reference")) == 6.0
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    assert float(penalty([x], 1.0, 1.0)) == 6.0
                (warned,) = map(str, [w.message for w in seen])
                assert "not built" in warned and "FUSED_PENALTY_BACKEND=reference" in warned, warned
                assert float(penalty_and_grad([x], 1.0)[0]) == 3.0
                assert float(sums([x]).square[0]) == 3.0
                try:
                    penalty([x], 1.0, backend="cpu")
                except RuntimeError as e:
                    print(e)
                row = next(r for r in fp.backends().rows if r[:2] == ("cpu", "{framework}"))
                assert row[3] is False and "not built" in row[4], row
            """)
        )
        assert "'cpu' is not available" in found
        assert "its native module was not built; install from source with a C++20 compiler" in found


def test_without_a_framework_the_other_works() -> None:
    run_fresh(hiding("jax", "jaxlib") + textwrap.dedent("""
        import torch, fused_penalty as fp
        from fused_penalty.torch import penalty
        assert float(penalty([torch.ones(3)], 1.0)) == 3.0
        reasons = {(r[0], r[1]): r[4] for r in fp.backends().rows}
        assert "jax" in reasons["cpu", "jax"] and "jax" in reasons["reference", "jax"], reasons
    """))  # fmt: skip
    run_fresh(hiding("torch") + textwrap.dedent("""
        import jax.numpy as jnp, fused_penalty as fp
        from fused_penalty.jax import penalty
        assert float(penalty([jnp.ones(3)], 1.0)) == 3.0
        reasons = {(r[0], r[1]): r[4] for r in fp.backends().rows}
        assert "torch" in reasons["cpu", "torch"], reasons
    """))  # fmt: skip
