"""The mathematics of one element in Triton: the twin of kernels/elastic_net.h, line by line, and tested equal to it.

penalty of one element   l1 * |d| + l2 * d * d        d = x, or x - anchor
its derivative           l1 * sign(d) + 2 * l2 * d    sign(+-0) = +-0
its proximal step        anchor + soft(d, step * l1) / (1 + 2 * step * l2)    soft(d, t) = d - clip(d, t)

Arguments are tensors of float32 or float64. Compile without contraction to FMA (`enable_fp_fusion=False`): what is to
be fused says so.
"""

import triton
import triton.language as tl

# The codes of the operations that have a formula here, as kernels/operations.h has them.
GRADIENT = tl.constexpr(1)
ADD_GRADIENT = tl.constexpr(2)
PROX = tl.constexpr(3)
REGULARIZE = tl.constexpr(4)

# At most so many numbers are added up in a row in float32; then they go to float64.
RUN = tl.constexpr(16)
# A sum of squares of scaled numbers times this is the sum of squares.
UNSCALED = tl.constexpr(16.0)


@triton.jit
def magnitude(d):
    return tl.where(d < 0, -d, d)  # a NaN compares false and is returned


@triton.jit
def scaled(d):
    """Squares are added up as those of d / 4, so that RUN of them do not overflow where each d * d is a float32.
    C++ has d / 16 * d, which has the same bits; here that takes more registers than an H100 has to give."""
    return d * 0.25


@triton.jit
def sign(d):
    return tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, d))  # +-0 and NaN are returned as they are


@triton.jit
def subgradient(d, a, b, has_l1, has_l2):
    """`a` multiplies sign(d), `b` multiplies d. A term that is switched off is absent: 0 * inf would be NaN."""
    return tl.where(has_l1, a * sign(d), 0.0) + tl.where(has_l2, b * d, 0.0)


@triton.jit
def clip(d, t):
    """d limited to [-t, t]. d - clip(d, t) is the soft threshold: exactly 0 within the limits, NaN for NaN."""
    return tl.where(d > t, t, tl.where(d < -t, -t, d))


@triton.jit
def written(x, origin, old, a, b, has_l1, has_l2, OP: tl.constexpr):
    """What the operation writes for one element: `old` is the value of `out` before, `origin` the anchor or 0."""
    d = x - origin
    if OP == GRADIENT:
        return subgradient(d, a, b, has_l1, has_l2)
    elif OP == ADD_GRADIENT:
        return old + subgradient(d, a, b, has_l1, has_l2)
    elif OP == PROX:
        return origin + b * (d - clip(d, a))
    else:
        tl.static_assert(OP == REGULARIZE, "a row of the table of operations has no formula here")
        return x - clip(d, a) - tl.where(has_l2, b * d, 0.0)


@triton.jit
def larger(known, candidate):
    """The larger magnitude; a NaN stays."""
    return tl.where((candidate > known) | (candidate != candidate), candidate, known)
