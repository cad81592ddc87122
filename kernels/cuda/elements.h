// Elements in memory <-> values in registers, 16 bytes (a pack) at a time.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../small_floats.h"
#include "device.h"

namespace fused_penalty::cuda {

// The type that elements of type T are computed in.
template <class T>
struct ComputeIn {
  using type = float;
};
template <>
struct ComputeIn<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeIn<T>::type;

template <class T>
constexpr int kPack = 16 / sizeof(T);

__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline float widen(float v) { return v; }
__device__ inline double widen(double v) { return v; }
// By hand, not by cuda_fp8.h: the same few instructions on every architecture, and in the emulator.
__device__ inline float widen(Float8E4M3 v) { return widened<4, 3, false, float, uint32_t>(v.bits); }
__device__ inline float widen(Float8E5M2 v) { return widened<5, 2, true, float, uint32_t>(v.bits); }

__device__ inline void narrow(__half& to, float v) { to = __float2half_rn(v); }
__device__ inline void narrow(__nv_bfloat16& to, float v) { to = __float2bfloat16_rn(v); }
__device__ inline void narrow(float& to, float v) { to = v; }
__device__ inline void narrow(double& to, double v) { to = v; }

// Parameters are read once and gradients written once: streaming accesses leave the cache to others. A uint4, not
// a struct of 16 bytes: nvcc 13 copies the struct by two 64-bit accesses.
template <class T>
__device__ inline uint4 load_pack(const T* p) {
  return __ldcs(reinterpret_cast<const uint4*>(p));
}
template <class T>
__device__ inline void store_pack(T* p, const T (&values)[kPack<T>]) {
  uint4 bits;
  memcpy(&bits, values, sizeof bits);
  __stcs(reinterpret_cast<uint4*>(p), bits);
}
template <class T>
__device__ inline void unpack(const uint4& bits, T (&values)[kPack<T>]) {
  memcpy(values, &bits, sizeof bits);
}

// kCount elements as one access moves them: a single one, or 8 or 16 bytes.
template <class T, int kCount>
using Piece =
    std::conditional_t<kCount == 1, T, std::conditional_t<static_cast<int>(sizeof(T)) * kCount == 8, uint2, uint4>>;

template <int kCount, class T>
__device__ inline Piece<T, kCount> load_piece(const T* p) {
  return __ldcs(reinterpret_cast<const Piece<T, kCount>*>(p));
}
template <class T, int kCount>
__device__ inline void store_piece(T* p, const T (&values)[kCount]) {
  Piece<T, kCount> bits;
  static_assert(sizeof bits == sizeof values);
  memcpy(&bits, values, sizeof bits);
  __stcs(reinterpret_cast<Piece<T, kCount>*>(p), bits);
}
template <class T, int kCount>
__device__ inline void unpack_piece(const Piece<T, kCount>& bits, T (&values)[kCount]) {
  memcpy(values, &bits, sizeof bits);
}
// Whether a piece may be read at p, and else how many elements lie before the first one behind it.
template <int kCount, class T>
__device__ inline bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Piece<T, kCount>) == 0;
}
template <int kCount, class T>
__device__ inline int to_alignment(const T* p) {
  return static_cast<int>(-reinterpret_cast<uintptr_t>(p) % sizeof(Piece<T, kCount>) / sizeof(T));
}

template <class T>
__device__ inline int misalignment(const T* p) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(p) & 15);
}

}  // namespace fused_penalty::cuda
