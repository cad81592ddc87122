"""XLA custom calls on wrong operands, as any program may write them with `jax.ffi.ffi_call`.

A case: what is wrong, the call, and what the refusal must name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fused_penalty._core.dtypes import BITS, DTYPES
from fused_penalty._core.operations import Op
from fused_penalty._core.plan import BOTH, SLOT_SHIFT
from fused_penalty.jax import sums
from tests.kernels import forged_steps
from tests.kernels.forged_sizes import F32, Case, N, array, result, table

UNKNOWN = (-1, len(Op), 1 << 30)  # codes
TAG = BOTH << BITS | DTYPES.index("float32")  # of a chunk of the leaf 0


def changed(row: int, column: int, value: int) -> np.ndarray:
    found = table(N).copy()
    found[row, column] = value
    return found


def call(op: int, results: Sequence[Any], *operands: Any, anchored: bool = False) -> Callable[[], Any]:
    return lambda: jax.ffi.ffi_call("fused_penalty", results)(*operands, op=np.int32(op), anchored=anchored)


def sums_of(*leaves: Any, chunks: Any = None, totals: Any = None, one: Any = None, **kw: Any) -> Callable[[], Any]:
    results = [result(1, 2) if totals is None else totals, result() if one is None else one]
    return call(Op.SUMS, results, table(N) if chunks is None else chunks, *leaves, **kw)


def stats_of(totals: Any, *leaves: Any, chunks: Any = None) -> Callable[[], Any]:
    return call(Op.STATS, [totals, result()], table(N) if chunks is None else chunks, *leaves)


def gradient_of(
    coefficients: Any, *leaves: Any, outs: Sequence[Any], totals: Any = None, **kw: Any
) -> Callable[[], Any]:
    results = [result(1, 2) if totals is None else totals, *outs]
    return call(Op.GRADIENT, results, table(N), coefficients, *leaves, **kw)


def prox_of(coefficients: Any, *leaves: Any, outs: Sequence[Any], **kw: Any) -> Callable[[], Any]:
    return call(Op.PROX, [result(1, 2), *outs], table(N), coefficients, *leaves, **kw)


def groups() -> dict[str, list[Case]]:
    x, pair, like = array(), jnp.ones((1, 2), F32), result(N)
    short, half, small = array(4), array(N, jnp.float16), array(N, jnp.float8_e5m2)
    small_like = result(N, dtype=small.dtype)
    return {
        "anchors": [
            ("shorter", sums_of(x, short, anchored=True), "anchor 0"),
            ("longer", sums_of(x, array(2 * N), anchored=True), "anchor 0"),
            ("float16", sums_of(x, half, anchored=True), "anchor 0"),
            ("int32, as wide as the leaf", sums_of(x, array(N, jnp.int32), anchored=True), "anchor 0"),
            ("none", sums_of(x, anchored=True), "anchor"),
            ("one for two leaves", sums_of(x, x, x, anchored=True), "anchor"),
            ("shorter, gradient", gradient_of(pair, x, short, outs=[like], anchored=True), "anchor 0"),
            ("shorter, prox", prox_of(pair, x, short, outs=[like], anchored=True), "anchor 0"),
        ],
        "totals": [
            ("int8", sums_of(x, totals=result(1, 2, dtype=jnp.int8)), "totals"),
            ("float16", sums_of(x, totals=result(1, 2, dtype=jnp.float16)), "totals"),
            ("uint32", sums_of(x, totals=result(1, 2, dtype=jnp.uint32)), "totals"),
            ("one column", sums_of(x, totals=result(1, 1)), "totals"),
            ("three columns", sums_of(x, totals=result(2, 3)), "totals"),
            ("flat", sums_of(x, totals=result(2)), "totals"),
            ("no slot", sums_of(x, totals=result(0, 2)), "chunk 0"),
            ("stats of int8", stats_of(result(1, 5, dtype=jnp.int8), x), "totals"),
            ("stats of float32", stats_of(result(1, 5), x), "totals"),
            ("stats of two columns", stats_of(result(1, 2, dtype=jnp.uint32), x), "totals"),
            ("int8, gradient", gradient_of(pair, x, outs=[like], totals=result(1, 2, dtype=jnp.int8)), "totals"),
            ("echo of two", sums_of(x, one=result(2)), "echo"),
            ("echo of int8", sums_of(x, one=result(dtype=jnp.int8)), "echo"),
        ],
        "coefficients": [
            ("int8", gradient_of(pair.astype(jnp.int8), x, outs=[like]), "coefficients"),
            ("float16", gradient_of(pair.astype(jnp.float16), x, outs=[like]), "coefficients"),
            ("int8, prox", prox_of(pair.astype(jnp.int8), x, outs=[like]), "coefficients"),
            ("empty", gradient_of(jnp.ones((0, 2), F32), x, outs=[like]), "coefficients"),
            ("flat", gradient_of(jnp.ones(2, F32), x, outs=[like]), "coefficients"),
            ("a column", gradient_of(jnp.ones((2, 1), F32), x, outs=[like]), "coefficients"),
            ("of three slots", gradient_of(jnp.ones((3, 2), F32), x, outs=[like]), "coefficients"),
        ],
        "tables": [
            ("leaf 1 of 1", sums_of(x, chunks=changed(0, 2, 1)), "chunk 0"),
            ("slot 1 of 1", sums_of(x, chunks=changed(3, 3, 1 << SLOT_SHIFT | TAG)), "chunk 3"),
            ("another dtype", sums_of(x, chunks=changed(0, 3, TAG + 1)), "chunk 0"),
            ("past the end", sums_of(short), "chunk 0"),
            ("far past the end", sums_of(x, chunks=changed(0, 1, 1 << 30)), "chunk 0"),
            ("three columns", sums_of(x, chunks=table(N)[:, :3].copy()), "table"),
            ("flat", sums_of(x, chunks=table(N).ravel()), "table"),
            ("int32", sums_of(x, chunks=table(N).view(np.int32)), ""),
            ("no leaf", sums_of(), "chunk 0"),
        ],
        "leaves": [
            ("int32", sums_of(array(N, jnp.int32)), "leaf 0"),
            ("int8", sums_of(array(N, jnp.int8)), "leaf 0"),
            ("complex", sums_of(array(N, jnp.complex64)), "leaf 0"),
            ("float8 of another kind", sums_of(array(N, jnp.float8_e4m3b11fnuz)), "leaf 0"),
            ("empty int8", sums_of(x, array(0, jnp.int8)), "leaf 1"),
            ("float8, written", gradient_of(pair, small, outs=[small_like]), "leaf 0"),
            ("int32, stats", stats_of(result(1, 5, dtype=jnp.uint32), array(N, jnp.int32)), "leaf 0"),
        ],
        "operations": [
            *((f"code {code}", call(code, [result(1, 2), result()], table(N), x), "no operation") for code in UNKNOWN),
            ("a read array too many", call(Op.ADD_GRADIENT, [result(1, 2), like], table(N), pair, x), "operation"),
            ("without an echo", call(Op.SUMS, [result(1, 2)], table(N), x), "echo"),
        ],
        "outputs": [
            ("none", gradient_of(pair, x, outs=[]), "new array"),
            ("two of one leaf", gradient_of(pair, x, outs=[like, like]), "new array"),
            ("shorter", gradient_of(pair, x, outs=[result(4)]), "new array 0"),
            ("float16", gradient_of(pair, x, outs=[result(N, dtype=jnp.float16)]), "new array 0"),
            ("int32, as wide as the leaf", prox_of(pair, x, outs=[result(N, dtype=jnp.int32)]), "new array 0"),
            ("one for a leaf and its anchor", prox_of(pair, x, x, outs=[like]), "new array"),
        ],
        **forged_steps.groups(),
    }  # fmt: skip


def run(group: str) -> None:
    """Prints what was not refused as it should be; then that this process is alive and counts right."""
    assert float(sums([array()], backend="cpu").abs[0]) == N  # registers the handlers
    for name, forged, word in groups()[group]:
        try:
            jax.block_until_ready(forged())
        except jax.errors.JaxRuntimeError as error:
            message = str(error)
            if not message.startswith("INVALID_ARGUMENT") or word not in message:
                print(f"{name}: {message}")
        else:
            print(f"{name}: accepted")
    assert float(sums([array()], backend="cpu").abs[0]) == N
    print("alive")
