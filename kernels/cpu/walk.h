// One chunk, one pass over memory: what the operation finds in it (block.h), and what it writes. Included by one
// translation unit per instruction set.
#pragma once

#include "../chunks.h"
#include "../elastic_net.h"
#include "block.h"
#include "isa.h"

namespace fused_penalty::cpu {
namespace {

template <class T, Op kOp, bool kAnchored>
struct Walk {
  using G = Geometry<T>;
  using Lane = typename G::Lane;

  const T* x;
  const T* anchor;
  T* out;
  Lane a, b;
  bool has_l1, has_l2;
  Totals<T> totals{};

  // A block is read, then written while the first cache still holds it.
  inline void block(int rows) {
    read_block<T, kAnchored, finds_stats(kOp)>(x, anchor, rows, totals);
    const int n = rows * G::kLanes;
    if constexpr (writes(kOp)) write(n);
    advance(n);
  }

  inline void write(int n) {
    using V = typename G::V;
#pragma GCC unroll 2
    for (int i = 0; i < n; i += 2 * G::kWidth) {
      const Pair<T> xs = load_pair(x + i);
      Pair<T> origin{}, old{}, result;
      if constexpr (kAnchored) origin = load_pair(anchor + i);
      if constexpr (reads_old(kOp)) old = load_pair(out + i);
      for (int k = 0; k < 2; ++k) result[k] = written<kOp, V>(xs[k], origin[k], old[k], a, b, has_l1, has_l2);
      store_pair(out + i, result);
    }
  }

  void advance(int64_t n) {  // arithmetic on an absent (null) array would be undefined
    x += n;
    if constexpr (kAnchored) anchor += n;
    if constexpr (writes(kOp)) out += n;
  }

  // The last, incomplete row is padded with zeros, which add nothing but to the count of zeros.
  void edge(int count) {
    T padded[G::kLanes] = {}, origin[G::kLanes] = {}, result[G::kLanes] = {};
    T* const target = out;
    std::memcpy(padded, x, count * sizeof(T));
    if constexpr (kAnchored) std::memcpy(origin, anchor, count * sizeof(T));
    if constexpr (reads_old(kOp)) std::memcpy(result, target, count * sizeof(T));
    x = padded;
    anchor = origin;
    out = result;
    block(1);
    if constexpr (writes(kOp)) std::memcpy(target, result, count * sizeof(T));
    if constexpr (finds_stats(kOp)) totals.zeros[0] -= G::kLanes - count;
  }

  Stats run(int64_t n) {
    constexpr int64_t kBlock = kBlockRows * G::kLanes;
    for (; n >= kBlock; n -= kBlock) block(kBlockRows);
    if (n >= G::kLanes) block(static_cast<int>(n / G::kLanes));
    if (n % G::kLanes) edge(static_cast<int>(n % G::kLanes));
    if constexpr (!finds_stats(kOp)) return {{sum_of(totals.abs), sum_of(totals.square)}};
    return {
        {sum_of(totals.abs), sum_of(totals.square), totals.largest, sum_of(totals.zeros), sum_of(totals.non_finite)}};
  }
};

template <class T, Op kOp, bool kAnchored>
Stats walk(const Chunk& chunk, ChunkArrays arrays, const double* coefficients) {
  using W = Walk<T, kOp, kAnchored>;
  using Lane = typename W::Lane;
  W w{static_cast<const T*>(arrays.x),
      static_cast<const T*>(arrays.anchor),
      static_cast<T*>(arrays.out),
      coefficients ? static_cast<Lane>(coefficients[0]) : Lane{},
      coefficients ? static_cast<Lane>(coefficients[1]) : Lane{},
      chunk.has_l1(),
      chunk.has_l2()};
  w.advance(chunk.offset());
  return w.run(chunk.length());
}

// The one switch over dtypes in the CPU code.
template <Op kOp, bool kAnchored>
Stats walk_any(const Chunk& chunk, ChunkArrays arrays, const double* coefficients) {
  constexpr Op kReading = reading(kOp);
  switch (chunk.dtype()) {
    case DType::kFloat16:
      return walk<Half, kOp, kAnchored>(chunk, arrays, coefficients);
    case DType::kBFloat16:
      return walk<BFloat16, kOp, kAnchored>(chunk, arrays, coefficients);
    case DType::kFloat32:
      return walk<float, kOp, kAnchored>(chunk, arrays, coefficients);
    case DType::kFloat64:
      return walk<double, kOp, kAnchored>(chunk, arrays, coefficients);
    case DType::kFloat8E4M3:
      return walk<Float8E4M3, kReading, kAnchored>(chunk, arrays, coefficients);
    case DType::kFloat8E5M2:
      return walk<Float8E5M2, kReading, kAnchored>(chunk, arrays, coefficients);
  }
  __builtin_unreachable();  // the chunk's dtype is that of a leaf (first_misfit)
}

inline WalkChunk choose_walk(Op op, bool anchored) {
  return visit(op, [&]<Op kOp>() -> WalkChunk { return anchored ? walk_any<kOp, true> : walk_any<kOp, false>; });
}

}  // namespace
}  // namespace fused_penalty::cpu
