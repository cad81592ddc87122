"""One element's step of an optimizer with the penalty in it, in Triton: the twin of kernels/step_formula.h, which says
what the coefficients are; with the same bits.

Which arrays a step has is a set of bits, as in kernels/steps.h, and tells it from the others.
"""

import triton
import triton.language as tl

from .elastic_net import clip, larger, sign

GRADIENT, FIRST, SECOND, MAXIMUM = tl.constexpr(1), tl.constexpr(2), tl.constexpr(4), tl.constexpr(8)

# The coefficients of a slot, in the order of kernels/steps.h.
SCALE, L1, L2, DECAY, SHRINK = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3), tl.constexpr(4)
KEEP, REST, TAKE, LOOK, RATE = tl.constexpr(5), tl.constexpr(6), tl.constexpr(7), tl.constexpr(8), tl.constexpr(9)
ROOT, EPSILON, THRESHOLD, PULL = tl.constexpr(10), tl.constexpr(11), tl.constexpr(12), tl.constexpr(13)
METRIC, SKIP = tl.constexpr(14), tl.constexpr(15)
COEFFICIENTS = tl.constexpr(16)
INVERSE = tl.constexpr(16)  # behind them: 1 / (1 + pull), from float64


@triton.jit
def read_coefficients(at, F: tl.constexpr):
    """The coefficients of a slot and the inverse, in F."""
    c = ()
    for i in tl.static_range(COEFFICIENTS):
        c += (tl.load(at + i).to(F),)
    c += ((1.0 / (1.0 + tl.load(at + PULL))).to(F),)
    return c


@triton.jit
def divided(a, b):
    """Rounded as IEEE 754 has it, which Triton's own division of float32 is not."""
    if b.dtype == tl.float32:
        return tl.div_rn(a, b)
    else:
        return a / b


@triton.jit
def square_root(v):
    if v.dtype == tl.float32:
        return tl.sqrt_rn(v)
    else:
        return tl.sqrt(v)


@triton.jit
def seen_gradient(x, d, scaled_gradient, c):
    u = tl.where(c[L1] != 0, scaled_gradient + c[L1] * sign(d), scaled_gradient)  # not 0·d, NaN for an infinite d
    u = tl.where(c[L2] != 0, u + c[L2] * d, u)
    return tl.where(c[DECAY] != 0, u + c[DECAY] * x, u)


@triton.jit
def with_momentum(u, momentum, c):
    """The new momentum, and what SGD goes along."""
    momentum = c[KEEP] * momentum + c[TAKE] * u
    return momentum, tl.where(c[LOOK] != 0, u + c[LOOK] * momentum, momentum)


@triton.jit
def pulled(z, c):
    """d after the proximal step of a displacement z, in the euclidean metric."""
    return (z - clip(z, c[THRESHOLD])) * c[INVERSE]


@triton.jit
def pulled_in_metric(z, reciprocal, second, c):
    """The same in the metric D, whose reciprocal is given; `second` is what D was made of."""
    found = z - clip(z, c[THRESHOLD] * reciprocal)
    found = tl.where(c[PULL] != 0, divided(found, 1.0 + c[PULL] * reciprocal), found)
    return tl.where(second == 0, z, found)


@triton.jit
def stepped(x, origin, gradient, first, second, maximum, c, ARRAYS: tl.constexpr, ANCHORED: tl.constexpr):
    """x and the state after the step, the gradient as the optimizer is given it (scaled), and d afterwards."""
    z = x
    metric = second
    if GRADIENT & ARRAYS:
        gradient = c[SCALE] * gradient
        along = seen_gradient(x, x - origin, gradient, c)
        if SECOND & ARRAYS:
            first = first + c[TAKE] * (along - first)
            second = c[KEEP] * second + c[REST] * along * along
            metric = second
            if MAXIMUM & ARRAYS:
                maximum = larger(maximum, second)
                metric = maximum
        elif FIRST & ARRAYS:
            first, along = with_momentum(along, first, c)
    if SECOND & ARRAYS:
        reciprocal = divided(1.0, c[ROOT] * square_root(metric) + c[EPSILON])
        if GRADIENT & ARRAYS:
            along = first * reciprocal
    if GRADIENT & ARRAYS:
        z = c[SHRINK] * x - c[RATE] * along
    after = z - origin
    near = pulled(after, c)
    if SECOND & ARRAYS:
        near = tl.where(c[METRIC] != 0, pulled_in_metric(after, reciprocal, metric, c), near)
    proximal = (c[THRESHOLD] != 0) | (c[PULL] != 0)
    after = tl.where(proximal, near, after)
    z = tl.where(proximal, origin + after if ANCHORED else after, z)
    return z, first, second, maximum, gradient, after
