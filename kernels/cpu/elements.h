// Elements in memory <-> lanes in registers. The namespace inside is anonymous: each instruction set
// compiles its own copy, and the linker must not merge them.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../dtypes.h"
#include "../small_floats.h"

namespace fused_penalty::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kRegister = 64;
#elif defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class Lane, int kBytes>
struct VectorOf {
  typedef Lane type __attribute__((vector_size(kBytes)));
};
template <class Lane, int kBytes = kRegister>
using Vector = typename VectorOf<Lane, kBytes>::type;

using Floats = Vector<float>;
using Doubles = Vector<double>;
using Words = Vector<uint32_t>;      // the bits of Floats
using LongWords = Vector<uint64_t>;  // the bits of Doubles

// The register that computes with elements of type T: floats for what is narrower.
template <class T>
struct ComputeIn {
  using type = Floats;
};
template <>
struct ComputeIn<double> {
  using type = Doubles;
};
template <class T>
using Register = typename ComputeIn<T>::type;

// A row of elements whose lanes take kBytes, and the registers that hold it.
template <class T, int kBytes>
struct RowOf {
  using V = Register<T>;
  using Lane = std::remove_reference_t<decltype(V{}[0])>;
  static constexpr int kLanes = kBytes / sizeof(Lane);
  static constexpr int kWidth = sizeof(V) / sizeof(Lane);
  static constexpr int kRegisters = kLanes / kWidth;
  using Registers = std::array<V, kRegisters>;
};

template <class V>
inline V load_bits(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Floats load(const float* p) { return load_bits<Floats>(p); }
inline Doubles load(const double* p) { return load_bits<Doubles>(p); }
inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }
inline void store(double* p, Doubles v) { std::memcpy(p, &v, sizeof v); }

// 16-bit elements to the low halves of 32-bit lanes and back, bytes to their low quarters. The compiler's own
// conversion of vectors takes about twice the instructions on x86.
#if defined(__AVX512F__)
inline Words load_words(const void* p) { return bit_cast<Words>(_mm512_cvtepu16_epi32(load_bits<__m256i>(p))); }
inline Words load_bytes(const void* p) { return bit_cast<Words>(_mm512_cvtepu8_epi32(load_bits<__m128i>(p))); }
inline void store_words(void* p, Words v) {
  const __m256i out = _mm512_cvtepi32_epi16(bit_cast<__m512i>(v));
  std::memcpy(p, &out, sizeof out);
}
#elif defined(__AVX2__)
inline Words load_words(const void* p) { return bit_cast<Words>(_mm256_cvtepu16_epi32(load_bits<__m128i>(p))); }
inline Words load_bytes(const void* p) {
  return bit_cast<Words>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}
inline void store_words(void* p, Words v) {
  const __m256i in = bit_cast<__m256i>(v);
  const __m128i out = _mm_packus_epi32(_mm256_castsi256_si128(in), _mm256_extracti128_si256(in, 1));
  std::memcpy(p, &out, sizeof out);
}
#else
using Shorts = Vector<uint16_t, kRegister / 2>;
using Bytes = Vector<uint8_t, kRegister / 4>;
inline Words load_words(const void* p) { return __builtin_convertvector(load_bits<Shorts>(p), Words); }
inline Words load_bytes(const void* p) { return __builtin_convertvector(load_bits<Bytes>(p), Words); }
inline void store_words(void* p, Words v) {
  const Shorts out = __builtin_convertvector(v, Shorts);
  std::memcpy(p, &out, sizeof out);
}
#endif

// A bfloat16 in the high half of each word, rounded to nearest, ties to even; the low halves are to be ignored.
inline Words rounded(Floats v) {
  const Words bits = bit_cast<Words>(v);
  return v != v ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
}
inline Floats load(const BFloat16* p) { return bit_cast<Floats>(load_words(p) << 16); }
inline void store(BFloat16* p, Floats v) { store_words(p, rounded(v) >> 16); }

#if defined(__AVX512F__)
inline Floats load(const Half* p) { return bit_cast<Floats>(_mm512_cvtph_ps(load_bits<__m256i>(p))); }
inline void store(Half* p, Floats v) {
  const __m256i out = _mm512_cvtps_ph(bit_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &out, sizeof out);
}
#elif defined(__F16C__)
inline Floats load(const Half* p) { return bit_cast<Floats>(_mm256_cvtph_ps(load_bits<__m128i>(p))); }
inline void store(Half* p, Floats v) {
  const __m128i out = _mm256_cvtps_ph(bit_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &out, sizeof out);
}
#else
inline Floats load(const Half* p) { return widened<5, 10, true, Floats>(load_words(p)); }
// Float to half, to nearest and ties to even. Adding 0.5 aligns a result below 2^-14 with the last bit.
inline void store(Half* p, Floats v) {
  const Words bits = bit_cast<Words>(v);
  const Words body = bits & 0x7fffffff;
  const Words normal = (body + 0xfff + ((body >> 13) & 1) - (112u << 23)) >> 13;
  const Words tiny = bit_cast<Words>(bit_cast<Floats>(body) + 0.5f) - (126u << 23);
  const Words quiet = 0x7e00 | (body >> 13 & 0x3ff);
  Words half = body < (113u << 23) ? tiny : normal;
  half = body >= 0x477ff000 ? Words{} + 0x7c00 : half;  // 65520 and above round to inf
  half = body > (255u << 23) ? quiet : half;
  store_words(p, half | (bits >> 16 & 0x8000));
}
#endif

// The elements of two registers, in whatever order is quickest: the same for every array of a type.
template <class T>
using Pair = std::array<Register<T>, 2>;

template <class T>
inline Pair<T> load_pair(const T* p) {
  return {load(p), load(p + sizeof(Register<T>) / sizeof(load(p)[0]))};
}
template <class T>
inline void store_pair(T* p, const Pair<T>& v) {
  store(p, v[0]);
  store(p + sizeof v[0] / sizeof v[0][0], v[1]);
}

// Elements with even and with odd index: what lies in one word needs no shuffle.
inline Pair<BFloat16> load_pair(const BFloat16* p) {
  const auto words = load_bits<Words>(p);
  return {bit_cast<Floats>(words << 16), bit_cast<Floats>(words & 0xffff0000u)};
}
inline void store_pair(BFloat16* p, const Pair<BFloat16>& v) {
  const Words words = rounded(v[0]) >> 16 | (rounded(v[1]) & 0xffff0000u);
  std::memcpy(p, &words, sizeof words);
}

// |v| by its bits: one instruction, where a comparison takes three.
inline Floats absolute(Floats v) { return bit_cast<Floats>(bit_cast<Words>(v) & 0x7fffffffu); }
inline Doubles absolute(Doubles v) { return bit_cast<Doubles>(bit_cast<LongWords>(v) & ~(uint64_t{1} << 63)); }

#if defined(__AVX512F__)
inline Floats square_root(Floats v) { return bit_cast<Floats>(_mm512_sqrt_ps(bit_cast<__m512>(v))); }
inline Doubles square_root(Doubles v) { return bit_cast<Doubles>(_mm512_sqrt_pd(bit_cast<__m512d>(v))); }
#elif defined(__AVX2__)
inline Floats square_root(Floats v) { return bit_cast<Floats>(_mm256_sqrt_ps(bit_cast<__m256>(v))); }
inline Doubles square_root(Doubles v) { return bit_cast<Doubles>(_mm256_sqrt_pd(bit_cast<__m256d>(v))); }
#elif defined(__SSE2__)
inline Floats square_root(Floats v) { return bit_cast<Floats>(_mm_sqrt_ps(bit_cast<__m128>(v))); }
inline Doubles square_root(Doubles v) { return bit_cast<Doubles>(_mm_sqrt_pd(bit_cast<__m128d>(v))); }
#else
template <class V>
inline V square_root(V v) {
  for (size_t k = 0; k < sizeof(V) / sizeof(v[0]); ++k) v[k] = std::sqrt(v[k]);
  return v;
}
#endif

inline Floats load(const Float8E4M3* p) { return widened<4, 3, false, Floats>(load_bytes(p)); }
inline Floats load(const Float8E5M2* p) { return widened<5, 2, true, Floats>(load_bytes(p)); }

}  // namespace
}  // namespace fused_penalty::cpu
