// Floats of 8 and 16 bits, widened to float: for vectors of the CPU's code and for a GPU's thread.
#pragma once

#include <cstdint>

namespace fused_penalty {

// Elements of 8 bits; no compiler has a type for them.
struct Float8E4M3 {
  uint8_t bits;
};
struct Float8E5M2 {
  uint8_t bits;
};

// constexpr, like all that CUDA's kernels take from here (--expt-relaxed-constexpr).
template <class To, class From>
static constexpr To bit_cast(From v) {
  return __builtin_bit_cast(To, v);
}

// Floats of kExponent and kMantissa bits, in the low bits of Words, widened to float: exponent and mantissa are moved,
// then what has another bias is repaired. No denormal float appears on the way, so the result does not depend on the
// flush-to-zero mode of the thread. Words and Floats are uint32_t and float, or vectors of them.
//
// kInfinite: the largest exponent means inf and NaN, as in IEEE 754; else only the number of all ones is NaN.
template <int kExponent, int kMantissa, bool kInfinite, class Floats, class Words>
static constexpr Floats widened(Words small) {
  constexpr int kShift = 23 - kMantissa, kSign = kExponent + kMantissa;
  constexpr uint32_t kBias = 127 - ((1 << (kExponent - 1)) - 1);
  constexpr uint32_t kTop = ((1u << kExponent) - 1) << 23, kOnes = ((1u << kSign) - 1) << kShift;
  const Words body = (small & ((1u << kSign) - 1)) << kShift;
  const Words exponent = body & kTop;
  const Words zero = Words{};
  const Words tiny =
      bit_cast<Words>(bit_cast<Floats>(body + ((kBias + 1) << 23)) - bit_cast<Floats>(zero + ((kBias + 1) << 23)));
  const Words normal = exponent == 0 ? tiny : body + (kBias << 23);
  const Words all =
      kInfinite ? (exponent == kTop ? body + (2 * kBias << 23) : normal) : (body == kOnes ? zero + 0x7fc00000 : normal);
  return bit_cast<Floats>(all | (small >> kSign & 1) << 31);
}

}  // namespace fused_penalty
