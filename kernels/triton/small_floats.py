"""Floats of 8 bits, widened to float32 by hand: the twin of kernels/small_floats.h. Triton's own conversion asks for a
GPU that has one, and its interpreter lacks it."""

import triton
import triton.language as tl


@triton.jit
def widened(small, EXPONENT: tl.constexpr, MANTISSA: tl.constexpr, INFINITE: tl.constexpr):
    """INFINITE: the largest exponent means inf and NaN; else only the number of all ones is NaN."""
    SIGN: tl.constexpr = EXPONENT + MANTISSA
    SHIFT: tl.constexpr = 23 - MANTISSA
    BIAS: tl.constexpr = 127 - ((1 << (EXPONENT - 1)) - 1)
    TOP: tl.constexpr = ((1 << EXPONENT) - 1) << 23
    ONES: tl.constexpr = ((1 << SIGN) - 1) << SHIFT
    LEAST: tl.constexpr = (BIAS + 1) << 23  # the bits of the least normal number
    word = small.to(tl.uint32)
    body = (word & ((1 << SIGN) - 1)) << SHIFT
    exponent = body & TOP
    least = tl.zeros_like(body) + LEAST
    tiny = (body + LEAST).to(tl.float32, bitcast=True) - least.to(tl.float32, bitcast=True)
    normal = tl.where(exponent == 0, tiny.to(tl.uint32, bitcast=True), body + (BIAS << 23))
    if INFINITE:
        every = tl.where(exponent == TOP, body + (2 * BIAS << 23), normal)
    else:
        every = tl.where(body == ONES, tl.zeros_like(body) + 0x7FC00000, normal)
    return (every | (((word >> SIGN) & 1) << 31)).to(tl.float32, bitcast=True)
