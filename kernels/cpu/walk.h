// One chunk, one pass: the sums of |d| and d*d, what the operation counts, and what it writes. Included by one
// translation unit per instruction set.
//
// Each of the kLanes accumulators takes kRun additions in the compute type (elastic_net.h), then the block's
// lanes are added up in double. The order of all additions is the same for every register width, and the build
// forbids contraction to FMA here, so every instruction set gives the same bits.
#pragma once

#include <array>
#include <type_traits>

#include "../chunks.h"
#include "../elastic_net.h"
#include "elements.h"
#include "isa.h"

namespace fused_penalty::cpu {
namespace {

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
    if constexpr (writes(kOp)) out += n;
  }
};

// One accumulator a lane; those that an operation does not touch cost nothing.
template <class V, int kRegisters>
struct Accumulators {
  using Lanes = std::array<V, kRegisters>;
  Lanes abs{}, square{}, largest{}, zeros{}, non_finite{};
};

template <class T, Op kOp, bool kAnchored>
struct Walk {
  using V = Register<T>;
  using Lane = std::remove_reference_t<decltype(V{}[0])>;
  static constexpr int kLanes = 128 / sizeof(Lane);
  static constexpr int kWidth = sizeof(V) / sizeof(Lane);
  static constexpr int kRegisters = kLanes / kWidth;
  using Block = Accumulators<V, kRegisters>;
  using Lanes = typename Block::Lanes;
  using Totals = std::array<double, kTotals>;

  Cursor<T, kOp, kAnchored> at;
  Lane a, b;
  bool has_l1, has_l2;
  Totals abs{}, square{}, zeros{}, non_finite{};
  double largest = 0;

  // One row of kLanes elements.
  inline void row(Block& block) {
#pragma GCC unroll 8
    for (int k = 0; k < kRegisters; ++k) {
      const V x = load(at.x + k * kWidth);
      V origin{}, old{};
      if constexpr (kAnchored) origin = load(at.anchor + k * kWidth);
      const V d = x - origin;
      block.abs[k] += magnitude(d);
      block.square[k] += scaled(d) * d;
      if constexpr (finds_stats(kOp)) {
        const V one = V{} + 1;
        block.largest[k] = larger(block.largest[k], magnitude(d));
        block.zeros[k] += d == 0 ? one : V{};
        block.non_finite[k] += d - d == 0 ? V{} : one;
      }
      if constexpr (reads_old(kOp)) old = load(at.out + k * kWidth);
      if constexpr (writes(kOp)) store(at.out + k * kWidth, written<kOp>(x, origin, old, a, b, has_l1, has_l2));
    }
    at.advance(kLanes);
  }

  inline void rows(int count) {
    Block block;
    for (int i = 0; i < count; ++i) row(block);
    add(block.abs, abs);
    add(block.square, square);
    if constexpr (finds_stats(kOp)) {
      add(block.zeros, zeros);
      add(block.non_finite, non_finite);
      for (int k = 0; k < kRegisters; ++k)
        for (int j = 0; j < kWidth; ++j) largest = larger(largest, static_cast<double>(block.largest[k][j]));
    }
  }

  static inline void add(const Lanes& lanes, Totals& totals) {
    for (int k = 0; k < kRegisters; ++k)
      for (int j = 0; j < kWidth; ++j) totals[(k * kWidth + j) % kTotals] += lanes[k][j];
  }

  // The last, incomplete row is padded with zeros, which add nothing but to the count of zeros.
  void edge(int count) {
    T x[kLanes] = {}, anchor[kLanes] = {}, out[kLanes] = {};
    const auto here = at;
    std::memcpy(x, here.x, count * sizeof(T));
    if constexpr (kAnchored) std::memcpy(anchor, here.anchor, count * sizeof(T));
    if constexpr (reads_old(kOp)) std::memcpy(out, here.out, count * sizeof(T));
    at = {x, anchor, out};
    rows(1);
    if constexpr (writes(kOp)) std::memcpy(here.out, out, count * sizeof(T));
    if constexpr (finds_stats(kOp)) zeros[0] -= kLanes - count;
  }

  static double sum(const Totals& totals) {
    double sum = 0;
    for (double v : totals) sum += v;
    return sum;
  }

  Stats run(int64_t n) {
    for (; n >= kRun * kLanes; n -= kRun * kLanes) rows(kRun);
    if (n >= kLanes) rows(static_cast<int>(n / kLanes));
    if (n % kLanes) edge(static_cast<int>(n % kLanes));
    return {{sum(abs), sum(square) * kUnscaled, largest, sum(zeros), sum(non_finite)}};
  }
};

template <class T, Op kOp, bool kAnchored>
Stats walk(const Chunk& chunk, ChunkArrays arrays, const double* coefficients) {
  using W = Walk<T, kOp, kAnchored>;
  using Lane = typename W::Lane;
  W w{{static_cast<const T*>(arrays.x), static_cast<const T*>(arrays.anchor), static_cast<T*>(arrays.out)},
      coefficients ? static_cast<Lane>(coefficients[0]) : Lane{},
      coefficients ? static_cast<Lane>(coefficients[1]) : Lane{},
      chunk.has_l1(),
      chunk.has_l2()};
  w.at.advance(chunk.offset());
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
