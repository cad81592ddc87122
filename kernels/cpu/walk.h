// One chunk, one pass: the sums of |d| and d*d, and what the operation writes. Included by one
// translation unit per instruction set.
//
// Each of the kLanes accumulators takes kRun additions in the compute type, then the block's lanes are
// added up in double. The order of all additions is the same for every register width, and the build
// forbids contraction to FMA here, so every instruction set gives the same bits.
#pragma once

#include <array>
#include <type_traits>

#include "../chunks.h"
#include "../elastic_net.h"
#include "isa.h"
#include "vectors.h"

namespace fused_penalty::cpu {
namespace {

constexpr int kRun = 32;    // additions into one accumulator before it goes to double
constexpr int kTotals = 8;  // double accumulators for each of the two sums

// Where a walk stands in the arrays that its operation has.
template <class T, Op kOp, bool kAnchored>
struct Cursor {
  const T* x;
  const T* anchor;
  T* out;

  void advance(int64_t n) {  // arithmetic on an absent (null) array would be undefined
    x += n;
    if constexpr (kAnchored) anchor += n;
    if constexpr (kOp != Op::kSums) out += n;
  }
};

template <class T, Op kOp, bool kAnchored>
struct Walk {
  using V = Register<T>;
  using Lane = std::remove_reference_t<decltype(V{}[0])>;
  static constexpr int kLanes = 128 / sizeof(Lane);
  static constexpr int kWidth = sizeof(V) / sizeof(Lane);
  static constexpr int kRegisters = kLanes / kWidth;
  using Accumulators = std::array<V, kRegisters>;
  using Totals = std::array<double, kTotals>;

  Cursor<T, kOp, kAnchored> at;
  Lane a, b;
  bool has_l1, has_l2;
  Totals abs{}, square{};

  // One row of kLanes elements.
  inline void row(Accumulators& abs_lanes, Accumulators& square_lanes) {
#pragma GCC unroll 8
    for (int k = 0; k < kRegisters; ++k) {
      V d = load(at.x + k * kWidth);
      if constexpr (kAnchored) d -= load(at.anchor + k * kWidth);
      abs_lanes[k] += magnitude(d);
      square_lanes[k] += d * d;
      if constexpr (kOp == Op::kGradient) store(at.out + k * kWidth, subgradient(d, a, b, has_l1, has_l2));
    }
    at.advance(kLanes);
  }

  inline void rows(int count) {
    Accumulators abs_lanes{}, square_lanes{};
    for (int i = 0; i < count; ++i) row(abs_lanes, square_lanes);
    add(abs_lanes, abs);
    add(square_lanes, square);
  }

  static inline void add(const Accumulators& lanes, Totals& totals) {
    for (int k = 0; k < kRegisters; ++k)
      for (int j = 0; j < kWidth; ++j) totals[(k * kWidth + j) % kTotals] += lanes[k][j];
  }

  // The last, incomplete row is padded with zeros, which add nothing.
  void edge(int count) {
    T x[kLanes] = {}, anchor[kLanes] = {}, out[kLanes];
    const auto here = at;
    std::memcpy(x, here.x, count * sizeof(T));
    if constexpr (kAnchored) std::memcpy(anchor, here.anchor, count * sizeof(T));
    at = {x, anchor, out};
    rows(1);
    if constexpr (kOp != Op::kSums) std::memcpy(here.out, out, count * sizeof(T));
  }

  Sums run(int64_t n) {
    for (; n >= kRun * kLanes; n -= kRun * kLanes) rows(kRun);
    if (n >= kLanes) rows(static_cast<int>(n / kLanes));
    if (n % kLanes) edge(static_cast<int>(n % kLanes));
    Sums sums{0, 0};
    for (double v : abs) sums.abs += v;
    for (double v : square) sums.square += v;
    return sums;
  }
};

template <class T, Op kOp, bool kAnchored>
Sums walk(const Chunk& chunk, ChunkArrays arrays, const double* strengths) {
  using W = Walk<T, kOp, kAnchored>;
  using Lane = typename W::Lane;
  W w{{static_cast<const T*>(arrays.x), static_cast<const T*>(arrays.anchor), static_cast<T*>(arrays.out)},
      strengths ? static_cast<Lane>(strengths[0]) : Lane{},
      strengths ? static_cast<Lane>(strengths[1]) : Lane{},
      chunk.has_l1(),
      chunk.has_l2()};
  w.at.advance(chunk.offset());
  return w.run(chunk.length());
}

// The one switch over dtypes in the CPU code.
template <Op kOp, bool kAnchored>
Sums walk_any(const Chunk& chunk, ChunkArrays arrays, const double* strengths) {
  switch (chunk.dtype()) {
    case DType::kFloat16:
      return walk<Half, kOp, kAnchored>(chunk, arrays, strengths);
    case DType::kBFloat16:
      return walk<BFloat16, kOp, kAnchored>(chunk, arrays, strengths);
    case DType::kFloat32:
      return walk<float, kOp, kAnchored>(chunk, arrays, strengths);
    default:
      return walk<double, kOp, kAnchored>(chunk, arrays, strengths);
  }
}

inline WalkChunk choose_walk(Op op, bool anchored) {
  if (op == Op::kGradient) return anchored ? walk_any<Op::kGradient, true> : walk_any<Op::kGradient, false>;
  return anchored ? walk_any<Op::kSums, true> : walk_any<Op::kSums, false>;
}

}  // namespace
}  // namespace fused_penalty::cpu
