// The kernel: one launch walks all chunks; the last block to finish adds up the partial sums of each slot, in the
// order of the table. No float atomics, so the result does not depend on the grid or on timing.
#pragma once

#include "walk.h"

namespace fused_penalty::cuda {

constexpr int kWarps = kThreads / 32;

// Blocks that fit an SM at least: leaves the compiler the registers to have all loads of a group under way (left to
// itself, nvcc 13 keeps two of four) and none to spill. tests/gpu/artefact.py reads the outcome from the machine code.
constexpr int blocks_of(Op op) { return op == Op::kSums ? 3 : 2; }

// Everything of a launch, by value, so that a captured graph can replay it. Only addresses change from call to call;
// the table is a constant of the plan. Addresses: x of every leaf, then the anchors, then the outputs, as far as the
// operation has them; a null output stands for a leaf that is only read.
template <int kCapacity>
struct Arguments {
  const Chunk* chunks;      // sorted by slot
  const void* strengths;    // (slots, 2): a and b of the subgradient; float64 if wide_strengths, else float32
  Sums* partials;           // (chunks): scratch
  unsigned* ticket;         // scratch, zero before the first launch
  void* sums;               // (slots, 2), written; float64 if wide_sums, else float32
  float* one;               // written 1 (the echo); may be null
  const void* const* more;  // the addresses, if there are more than kCapacity; else null
  int chunk_count, slots, leaves;
  bool wide_strengths, wide_sums;
  const void* addresses[kCapacity];

  __device__ const void* address(int i) const { return more ? more[i] : addresses[i]; }
};

__device__ inline double add_across_warp(double v) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) v += __shfl_xor_sync(0xffffffffu, v, lanes);
  return v;
}

// Thread 0 gets the sum over the block, the same order every time.
__device__ inline Sums add_across_block(Sums mine, Sums (&warps)[kWarps]) {
  mine = {add_across_warp(mine.abs), add_across_warp(mine.square)};
  __syncthreads();  // the last use of `warps` is over
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
  __syncthreads();
  Sums total{0, 0};
  if (threadIdx.x == 0)
    for (int w = 0; w < kWarps; ++w) total = {total.abs + warps[w].abs, total.square + warps[w].square};
  return total;
}

// a and b of the subgradient for the slot of a chunk.
template <class F, class A>
__device__ void read_strengths(const A& arg, const Chunk& chunk, F& a, F& b) {
  const int row = 2 * static_cast<int>(chunk.slot());
  if (arg.wide_strengths) {
    const auto* s = static_cast<const double*>(arg.strengths) + row;
    a = static_cast<F>(s[0]), b = static_cast<F>(s[1]);
  } else {
    const auto* s = static_cast<const float*>(arg.strengths) + row;
    a = static_cast<F>(s[0]), b = static_cast<F>(s[1]);
  }
}

template <class T, Op kOp, bool kAnchored, class A>
__device__ Sums walk(const Chunk& chunk, const A& arg) {
  const auto leaf = static_cast<int>(chunk.leaf), length = static_cast<int>(chunk.length());
  const auto* x = static_cast<const T*>(arg.address(leaf)) + chunk.offset();
  const T* anchor = nullptr;
  if constexpr (kAnchored) anchor = static_cast<const T*>(arg.address(arg.leaves + leaf)) + chunk.offset();
  if constexpr (kOp != Op::kSums) {
    if (auto* out = static_cast<T*>(const_cast<void*>(arg.address((kAnchored ? 2 : 1) * arg.leaves + leaf)))) {
      Walk<T, kOp, kAnchored> walk{{x, anchor, out + chunk.offset()}, {}, {}, chunk.has_l1(), chunk.has_l2()};
      read_strengths(arg, chunk, walk.a, walk.b);
      return walk.run(length);
    }
  }
  Walk<T, Op::kSums, kAnchored> walk{{x, anchor, nullptr}, {}, {}, false, false};
  return walk.run(length);
}

// The one switch over dtypes in the CUDA code; a block takes one branch.
template <Op kOp, bool kAnchored, class A>
__device__ Sums walk_any(const Chunk& chunk, const A& arg) {
  switch (chunk.dtype()) {
    case DType::kFloat16:
      return walk<__half, kOp, kAnchored>(chunk, arg);
    case DType::kBFloat16:
      return walk<__nv_bfloat16, kOp, kAnchored>(chunk, arg);
    case DType::kFloat32:
      return walk<float, kOp, kAnchored>(chunk, arg);
    default:
      return walk<double, kOp, kAnchored>(chunk, arg);
  }
}

// The first chunk whose slot is not below `slot`.
__device__ inline int first_chunk(const Chunk* chunks, int count, int slot) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (static_cast<int>(chunks[middle].slot()) < slot)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

template <class A>
__device__ void write_sums(const A& arg, int slot, Sums total) {
  if (arg.wide_sums) {
    static_cast<double*>(arg.sums)[2 * slot] = total.abs;
    static_cast<double*>(arg.sums)[2 * slot + 1] = total.square;
  } else {
    static_cast<float*>(arg.sums)[2 * slot] = static_cast<float>(total.abs);
    static_cast<float*>(arg.sums)[2 * slot + 1] = static_cast<float>(total.square);
  }
}

// Partials of one slot by `threads` threads, of which this is number `rank`. Other blocks wrote them: past the L1.
template <class A>
__device__ Sums add_partials(const A& arg, int slot, int rank, int threads) {
  Sums mine{0, 0};
  const int stop = first_chunk(arg.chunks, arg.chunk_count, slot + 1);
  for (int c = first_chunk(arg.chunks, arg.chunk_count, slot) + rank; c < stop; c += threads) {
    mine.abs += __ldcg(&arg.partials[c].abs);
    mine.square += __ldcg(&arg.partials[c].square);
  }
  return mine;
}

// Few slots have many chunks each: the block takes one slot at a time. Many slots: a warp each.
template <class A>
__device__ void finalise(const A& arg, Sums (&warps)[kWarps]) {
  if (arg.slots <= kWarps) {
    for (int slot = 0; slot < arg.slots; ++slot) {
      const Sums total = add_across_block(add_partials(arg, slot, static_cast<int>(threadIdx.x), kThreads), warps);
      if (threadIdx.x == 0) write_sums(arg, slot, total);
    }
    return;
  }
  for (int slot = static_cast<int>(threadIdx.x) / 32; slot < arg.slots; slot += kWarps) {
    const Sums mine = add_partials(arg, slot, static_cast<int>(threadIdx.x) % 32, 32);
    const Sums total{add_across_warp(mine.abs), add_across_warp(mine.square)};
    if (threadIdx.x % 32 == 0) write_sums(arg, slot, total);
  }
}

template <Op kOp, bool kAnchored, int kCapacity>
__global__ void __launch_bounds__(kThreads, blocks_of(kOp))
    penalty_kernel(const __grid_constant__ Arguments<kCapacity> arg) {
  SMEM(Sums, warps, [kWarps]);
  SMEM(bool, is_last, [1]);
  for (int c = static_cast<int>(blockIdx.x); c < arg.chunk_count; c += static_cast<int>(gridDim.x)) {
    const Sums total = add_across_block(walk_any<kOp, kAnchored>(arg.chunks[c], arg), warps);
    if (threadIdx.x == 0) arg.partials[c] = total;
  }
  if (threadIdx.x == 0) {
    __threadfence();  // this block's partials before its ticket ...
    is_last[0] = atomicAdd(arg.ticket, 1u) == gridDim.x - 1;
    __threadfence();  // ... and all tickets before the last block's reads
  }
  __syncthreads();
  if (!is_last[0]) return;
  finalise(arg, warps);
  if (threadIdx.x == 0 && arg.one) *arg.one = 1;
}

// For models with more addresses than a launch holds: puts some of them into the table `more`.
template <int kCapacity>
struct SomeAddresses {
  const void** to;
  int count;
  const void* addresses[kCapacity];
};

template <int kCapacity>
__global__ void write_addresses_kernel(const __grid_constant__ SomeAddresses<kCapacity> some) {
  for (int i = static_cast<int>(threadIdx.x); i < some.count; i += kThreads) some.to[i] = some.addresses[i];
}

}  // namespace fused_penalty::cuda
