// The mathematics of one element, for host and device; the only copy in native code.
//
//   penalty of one element   l1 * |d| + l2 * d * d        d = x, or x - anchor
//   its derivative           l1 * sign(d) + 2 * l2 * d    sign(+-0) = +-0
//
// F is float, double or a vector of them (GCC vector extension): only operators are used, so that the
// CPU's vector code and a GPU thread share these lines. The functions are static: the translation
// units of the CPU kernels are compiled for different instruction sets and must not share their bodies.
#pragma once

namespace fused_penalty {

template <class F>
static constexpr F magnitude(F d) {
  return d < 0 ? -d : d;  // a NaN compares false and is returned
}

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

}  // namespace fused_penalty
