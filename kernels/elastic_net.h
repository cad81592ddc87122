// The mathematics of one element, for host and device; the only copy in native code.
//
//   penalty of one element   l1 * |d| + l2 * d * d        d = x, or x - anchor
//   its derivative           l1 * sign(d) + 2 * l2 * d    sign(+-0) = +-0
//   its proximal step        anchor + soft(d, step * l1) / (1 + 2 * step * l2)    soft(d, t) = d - clip(d, t)
//
// F is float, double or a vector of them (GCC vector extension): only operators are used, so that the
// CPU's vector code and a GPU thread share these lines. The functions are static: the translation
// units of the CPU kernels are compiled for different instruction sets and must not share their bodies.
#pragma once

#include "chunks.h"

namespace fused_penalty {

// At most so many numbers are added up in a row in float32; then they go to float64. Each addition but the first rounds
// by 2^-24 at most: 15 * 2^-24 = 8.9e-7 in the worst case.
constexpr int kRun = 16;

template <class F>
static constexpr F magnitude(F d) {
  return d < 0 ? -d : d;  // a NaN compares false and is returned
}

// Squares are added up as d / 16 * d, so that kRun of them do not overflow where each d * d is a float32. A power of
// two costs no bit, but for |d| below 4.4e-19, where the product leaves float32's normal range.
template <class F>
static constexpr F scaled(F d) {
  return d * 0.0625f;
}
constexpr double kUnscaled = 16;  // a sum of scaled(d) * d times this is the sum of squares
static_assert(kRun <= kUnscaled);

template <class F>
static constexpr F sign(F d) {
  const F one = F{} + 1;
  return d > 0 ? one : (d < 0 ? -one : d);  // +-0 and NaN are returned as they are
}

// `a` multiplies sign(d), `b` multiplies d; the caller folds the factor 2 and any cotangent into them.
// A term that is switched off is absent: 0 * inf would be NaN.
template <class F, class S>
static constexpr F subgradient(F d, S a, S b, bool has_l1, bool has_l2) {
  const F first = has_l1 ? a * sign(d) : F{};
  const F second = has_l2 ? b * d : F{};
  return first + second;
}

// d limited to [-t, t]. d - clip(d, t) is the soft threshold: exactly 0 within the limits, NaN for NaN.
template <class F>
static constexpr F within(F d, F t) {
  const F below = d > t ? t : d;  // so written, both are an instruction of their own on x86
  return below < -t ? -t : below;
}
template <class F, class S>
static constexpr F clip(F d, S t) {
  return within(d, F{} + t);
}

// What the operation writes for one element: `old` is the value of `out` before, `origin` the anchor or 0.
template <Op kOp, class F, class S>
static constexpr F written(F x, F origin, F old, S a, S b, bool has_l1, bool has_l2) {
  const F d = x - origin;
  if constexpr (kOp == Op::kGradient) {
    return subgradient(d, a, b, has_l1, has_l2);
  } else if constexpr (kOp == Op::kAddGradient) {
    return old + subgradient(d, a, b, has_l1, has_l2);
  } else if constexpr (kOp == Op::kProx) {
    return origin + b * (d - clip(d, a));
  } else {
    static_assert(kOp == Op::kRegularize, "a row of the table of operations has no formula here");
    return x - clip(d, a) - (has_l2 ? b * d : F{});
  }
}

// The larger magnitude; a NaN stays.
template <class F>
static constexpr F larger(F known, F candidate) {
  return (candidate > known) | (candidate != candidate) ? candidate : known;
}

// How two parts of a column make one.
static constexpr double merged(int column, double a, double b) { return column == kLargest ? larger(a, b) : a + b; }

}  // namespace fused_penalty
