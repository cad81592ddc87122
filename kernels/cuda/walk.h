// One chunk, one block, one pass: each thread's share of the sums of |d| and d*d, and what the operation writes.
#pragma once

#include "../chunks.h"
#include "../elastic_net.h"
#include "elements.h"

namespace fused_penalty::cuda {

constexpr int kThreads = 256;
constexpr int kLoads = 4;  // packs in flight a thread: 8 blocks x 256 threads x 4 x 16 B = 128 KB an SM
constexpr int kRun = 32;   // additions into one float accumulator before it goes to double
constexpr int kIterations = kRun / kLoads;

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
  Span<T> at;
  F a, b;
  bool has_l1, has_l2;
  Sums sums{0, 0};

  __device__ T result(F d) const {
    T out;
    narrow(out, subgradient(d, a, b, has_l1, has_l2));
    return out;
  }

  // Elements [first, last) one by one: the edges, and arrays that no pack of 16 bytes can serve together.
  __device__ void elements(int first, int last) {
    for (int i = first + static_cast<int>(threadIdx.x); i < last; i += kThreads) {
      F d = widen(at.x[i]);
      if constexpr (kAnchored) d -= widen(at.anchor[i]);
      sums.abs += static_cast<double>(magnitude(d));
      sums.square += static_cast<double>(d * d);
      if constexpr (kOp == Op::kGradient) at.out[i] = result(d);
    }
  }

  // One pack of every array, added to one accumulator an element.
  __device__ void pack(int element, const uint4& x_bits, const uint4& anchor_bits, F (&abs)[kPack<T>],
                       F (&square)[kPack<T>]) {
    T x[kPack<T>], anchor[kPack<T>], out[kPack<T>];
    unpack(x_bits, x);
    if constexpr (kAnchored) unpack(anchor_bits, anchor);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      F d = widen(x[k]);
      if constexpr (kAnchored) d -= widen(anchor[k]);
      abs[k] += magnitude(d);
      square[k] = fma(d, d, square[k]);  // explicit: the emulator and every architecture round alike
      if constexpr (kOp == Op::kGradient) out[k] = result(d);
    }
    if constexpr (kOp == Op::kGradient) store_pack(at.out + element, out);
  }

  // `count` groups of kLoads packs from `first`, all loads of a group before its arithmetic.
  __device__ void groups(int first, int count) {
    for (int done = 0; done < count; done += kIterations) {
      F abs[kPack<T>] = {}, square[kPack<T>] = {};
      const int stop = min(count, done + kIterations);
#pragma unroll 1
      for (int g = done; g < stop; ++g) {
        uint4 x[kLoads], anchor[kLoads] = {};
        const int base = first + (g * kLoads * kThreads + static_cast<int>(threadIdx.x)) * kPack<T>;
#pragma unroll
        for (int j = 0; j < kLoads; ++j) {
          x[j] = load_pack(at.x + base + j * kThreads * kPack<T>);
          if constexpr (kAnchored) anchor[j] = load_pack(at.anchor + base + j * kThreads * kPack<T>);
        }
#pragma unroll
        for (int j = 0; j < kLoads; ++j) pack(base + j * kThreads * kPack<T>, x[j], anchor[j], abs, square);
      }
      add(abs, square);
    }
  }

  // Single packs up to `last`, fewer than a group.
  __device__ void packs(int first, int last) {
    F abs[kPack<T>] = {}, square[kPack<T>] = {};
    for (int i = first + static_cast<int>(threadIdx.x) * kPack<T>; i < last; i += kThreads * kPack<T>) {
      const uint4 x = load_pack(at.x + i);
      pack(i, x, kAnchored ? load_pack(at.anchor + i) : uint4{}, abs, square);
    }
    add(abs, square);
  }

  __device__ void add(const F (&abs)[kPack<T>], const F (&square)[kPack<T>]) {
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      sums.abs += static_cast<double>(abs[k]);
      sums.square += static_cast<double>(square[k]);
    }
  }

  __device__ Sums run(int n) {
    const int skew = misalignment(at.x);
    const bool together = (!kAnchored || misalignment(at.anchor) == skew) &&
                          (kOp == Op::kSums || misalignment(at.out) == skew) && skew % sizeof(T) == 0;
    if (!together) {
      elements(0, n);
      return sums;
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
    return sums;
  }
};

}  // namespace fused_penalty::cuda
