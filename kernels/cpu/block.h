// The sums of one block, up to kBlockRows rows of elements. Included by one translation unit per instruction set.
//
// The order of all additions is the same for every register width, and the build forbids contraction to FMA here, so
// every instruction set gives the same bits:
//   - a row has kLanes elements, one for each accumulator; an accumulator takes those of kRows rows, one by one;
//   - then a run's accumulators are added up in a tree, four to one, and kRuns runs to a block;
//   - what is left of a block goes to double.
// An element so takes part in at most kRows - 1 + 2 + kRuns - 1 = 12 roundings in float: 12 * 2^-24 = 7.2e-7.
#pragma once

#include <array>
#include <cstring>

#include "../elastic_net.h"
#include "elements.h"

namespace fused_penalty::cpu {
namespace {

constexpr int kRows = 8, kRuns = 4, kBlockRows = kRows * kRuns;

// An accumulator for each lane of a row, and a quarter of them, which a run leaves.
template <class T>
struct Geometry : RowOf<T, 128> {
  static constexpr int kQuarter = RowOf<T, 128>::kLanes / 4;
  using Quarter = Vector<typename RowOf<T, 128>::Lane, 128 / 4>;
  using Doubles = Vector<double, kQuarter * sizeof(double)>;
};

// What has been found of a chunk so far.
template <class T>
struct Totals {
  typename Geometry<T>::Doubles abs, square, zeros, non_finite;
  double largest;
};

template <class V>
inline double sum_of(const V& v) {
  double sum = 0;
  for (size_t j = 0; j < sizeof(V) / sizeof(double); ++j) sum += v[j];
  return sum;
}

// Lanes as words of 64 bits.
template <class V>
inline bool any(const V& mask) {
  std::array<uint64_t, sizeof(V) / 8> words;
  std::memcpy(words.data(), &mask, sizeof mask);
  uint64_t found = 0;
  for (uint64_t word : words) found |= word;
  return found;
}

template <class T, bool kAnchored>
inline Register<T> displacement(const T* x, const T* anchor, int i) {
  if constexpr (kAnchored) return load(x + i) - load(anchor + i);
  return load(x + i);
}

template <class T, bool kAnchored, bool kStats>
class Block {
  using G = Geometry<T>;
  using V = typename G::V;
  using Registers = typename G::Registers;
  using Quarter = typename G::Quarter;
  Quarter abs_{}, square_{}, zeros_{}, non_finite_{};
  Registers largest_{};

  static inline void add_tree(const Registers& lanes, Quarter& sum) {
    std::array<Quarter, 4> q;
    std::memcpy(q.data(), &lanes, sizeof lanes);
    sum += (q[0] + q[1]) + (q[2] + q[3]);
  }

  inline void run(const T* x, const T* anchor, int rows) {
    Registers abs{}, square{}, zeros{}, non_finite{};
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
      for (int k = 0; k < G::kRegisters; ++k) {
        const V d = displacement<T, kAnchored>(x, anchor, i * G::kLanes + k * G::kWidth);
        abs[k] += absolute(d);
        square[k] += d * d;
        if constexpr (kStats) {
          const V one = V{} + 1;
          largest_[k] = larger(largest_[k], absolute(d));
          zeros[k] += d == 0 ? one : V{};
          non_finite[k] += d - d == 0 ? V{} : one;
        }
      }
    add_tree(abs, abs_);
    add_tree(square, square_);
    if constexpr (kStats) {
      add_tree(zeros, zeros_);
      add_tree(non_finite, non_finite_);
    }
  }

  // The sums again, in double: they have left the range of a float, or there is a NaN or an infinity.
  static void widely(const T* x, const T* anchor, int rows, Totals<T>& totals) {
    for (int i = 0; i < rows * G::kLanes; i += G::kWidth) {
      const V lanes = displacement<T, kAnchored>(x, anchor, i);
      for (int j = 0; j < G::kWidth; ++j) {
        const double d = lanes[j];
        totals.abs[0] += std::fabs(d);
        totals.square[0] += d * d;
      }
    }
  }

 public:
  void read(const T* x, const T* anchor, int rows, Totals<T>& totals) {
    using Doubles = typename G::Doubles;
    for (int from = 0; from < rows; from += kRows) {
      const int64_t at = from * G::kLanes;
      run(x + at, kAnchored ? anchor + at : nullptr, rows - from < kRows ? rows - from : kRows);
    }
    const Quarter sums = abs_ + square_;
    if (sizeof(typename G::Lane) < sizeof(double) && any(sums - sums != 0)) {
      widely(x, anchor, rows, totals);
    } else {
      totals.abs += __builtin_convertvector(abs_, Doubles);
      totals.square += __builtin_convertvector(square_, Doubles);
    }
    if constexpr (kStats) {
      totals.zeros += __builtin_convertvector(zeros_, Doubles);
      totals.non_finite += __builtin_convertvector(non_finite_, Doubles);
      for (const V& lanes : largest_)
        for (int j = 0; j < G::kWidth; ++j) totals.largest = larger(totals.largest, static_cast<double>(lanes[j]));
    }
  }
};

// One function for all operations that find the same.
template <class T, bool kAnchored, bool kStats>
[[gnu::noinline]] void read_block(const T* x, const T* anchor, int rows, Totals<T>& totals) {
  Block<T, kAnchored, kStats>{}.read(x, anchor, rows, totals);
}

}  // namespace
}  // namespace fused_penalty::cpu
