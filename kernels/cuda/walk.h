// One chunk, one block, one pass: each thread's share of the sums of |d| and d*d and of the counts, and what the
// operation writes.
#pragma once

#include "../chunks.h"
#include "../elastic_net.h"
#include "arguments.h"
#include "elements.h"

namespace fused_penalty::cuda {

constexpr int kLoads = 4;             // packs in flight per thread: 8 blocks x 256 threads x 4 x 16 B = 128 KB per SM
constexpr int kMostAccumulators = 8;  // for each of the two sums: more would not fit the registers

// The chunk's part of the arrays of its leaf; `anchor` and `out` are null where the operation has none.
template <class T>
struct Span {
  const T* x;
  const T* anchor;
  T* out;
};

template <class T, Op kOp, bool kAnchored>
struct Walk {
  using F = Compute<T>;
  static constexpr int kAccumulators = kPack<T> < kMostAccumulators ? kPack<T> : kMostAccumulators;
  static constexpr int kIterations = kRun * kAccumulators / (kLoads * kPack<T>);  // groups before they go to double
  static_assert(kIterations > 0 && kIterations * kLoads * kPack<T> == kRun * kAccumulators);
  using Accumulators = F[kAccumulators];
  Span<T> at;
  F a, b;
  bool has_l1, has_l2;
  double abs = 0, square = 0;
  F largest = 0;
  int zeros = 0, non_finite = 0;

  // One element: adds it up, and returns what is written.
  __device__ T element(T x_bits, T anchor_bits, T old_bits, F& abs, F& square) {
    const F x = widen(x_bits);
    F origin{}, old{};
    if constexpr (kAnchored) origin = widen(anchor_bits);
    const F d = x - origin;
    abs += magnitude(d);
    square = fma(scaled(d), d, square);  // explicit: the emulator and every architecture round alike
    if constexpr (finds_stats(kOp)) {
      largest = larger(largest, magnitude(d));
      zeros += d == 0;
      non_finite += !(d - d == 0);
    }
    T out{};
    if constexpr (reads_old(kOp)) old = widen(old_bits);
    if constexpr (writes(kOp)) narrow(out, written<kOp>(x, origin, old, a, b, has_l1, has_l2));
    return out;
  }

  // Elements [first, last) one by one: the edges, and arrays that no pack of 16 bytes can serve together.
  __device__ void elements(int first, int last) {
    for (int i = first + static_cast<int>(threadIdx.x); i < last; i += kThreads) {
      F one_abs{}, one_square{};
      T anchor{}, old{};
      if constexpr (kAnchored) anchor = at.anchor[i];
      if constexpr (reads_old(kOp)) old = at.out[i];
      const T out = element(at.x[i], anchor, old, one_abs, one_square);
      if constexpr (writes(kOp)) at.out[i] = out;
      abs += static_cast<double>(one_abs);
      square += static_cast<double>(one_square);
    }
  }

  // The same pack of every array.
  struct Pack {
    uint4 x, anchor, old;
  };
  __device__ Pack load(int element) const {
    Pack pack{load_pack(at.x + element), {}, {}};
    if constexpr (kAnchored) pack.anchor = load_pack(at.anchor + element);
    if constexpr (reads_old(kOp)) pack.old = load_pack(at.out + element);
    return pack;
  }

  // One pack, element by element, to the accumulators in turn.
  __device__ void pack(int first, const Pack& bits, Accumulators& abs, Accumulators& square) {
    T x[kPack<T>], anchor[kPack<T>], old[kPack<T>], out[kPack<T>];
    unpack(bits.x, x);
    unpack(bits.anchor, anchor);
    unpack(bits.old, old);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k)
      out[k] = element(x[k], anchor[k], old[k], abs[k % kAccumulators], square[k % kAccumulators]);
    if constexpr (writes(kOp)) store_pack(at.out + first, out);
  }

  // `count` groups of kLoads packs from `first`, all loads of a group before its arithmetic.
  __device__ void groups(int first, int count) {
    for (int done = 0; done < count; done += kIterations) {
      Accumulators abs = {}, square = {};
      const int stop = min(count, done + kIterations);
#pragma unroll 1
      for (int g = done; g < stop; ++g) {
        Pack packs[kLoads];
        const int base = first + (g * kLoads * kThreads + static_cast<int>(threadIdx.x)) * kPack<T>;
#pragma unroll
        for (int j = 0; j < kLoads; ++j) packs[j] = load(base + j * kThreads * kPack<T>);
#pragma unroll
        for (int j = 0; j < kLoads; ++j) pack(base + j * kThreads * kPack<T>, packs[j], abs, square);
      }
      add(abs, square);
    }
  }

  // Single packs up to `last`, fewer than a group.
  __device__ void packs(int first, int last) {
    Accumulators abs = {}, square = {};
    for (int i = first + static_cast<int>(threadIdx.x) * kPack<T>; i < last; i += kThreads * kPack<T>)
      pack(i, load(i), abs, square);
    add(abs, square);
  }

  __device__ void add(const Accumulators& some_abs, const Accumulators& some_square) {
#pragma unroll
    for (int k = 0; k < kAccumulators; ++k) {
      abs += static_cast<double>(some_abs[k]);
      square += static_cast<double>(some_square[k]);
    }
  }

  __device__ Found<columns(kOp)> found() const {
    const double squares = square * kUnscaled;
    if constexpr (finds_stats(kOp))
      return {
          {abs, squares, static_cast<double>(largest), static_cast<double>(zeros), static_cast<double>(non_finite)}};
    else
      return {{abs, squares}};
  }

  __device__ Found<columns(kOp)> run(int n) {
    const int skew = misalignment(at.x);
    const bool together = (!kAnchored || misalignment(at.anchor) == skew) &&
                          (!writes(kOp) || misalignment(at.out) == skew) && skew % sizeof(T) == 0;
    if (!together) {
      elements(0, n);
      return found();
    }
    constexpr int kGroup = kLoads * kThreads * kPack<T>;
    const int head = min(n, static_cast<int>((16 - skew) % 16 / sizeof(T)));
    const int group_count = (n - head) / kGroup;
    const int after_groups = head + group_count * kGroup;
    const int after_packs = after_groups + (n - after_groups) / kPack<T> * kPack<T>;
    elements(0, head);
    groups(head, group_count);
    packs(after_groups, after_packs);
    elements(after_packs, n);
    return found();
  }
};

}  // namespace fused_penalty::cuda
