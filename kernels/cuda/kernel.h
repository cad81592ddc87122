// The kernel: one launch walks all chunks; the last block to finish adds up the partial sums of each slot, in the
// order of the table. No float atomics, so the result does not depend on the grid or on timing.
#pragma once

#include "walk.h"

namespace fused_penalty::cuda {

constexpr int kWarps = kThreads / 32;

// Blocks that fit an SM at least: leaves the compiler the registers to have all loads of a group under way (left to
// itself, nvcc 13 keeps two of four) and none to spill; three arrays to read need twice as many.
// tests/emulation/artefact.py reads the outcome from the machine code.
constexpr int blocks_of(Op op, bool anchored) { return reads_old(op) && anchored ? 1 : writes(op) ? 2 : 3; }

// Everything of a launch, by value, so that a captured graph can replay it. Only addresses change from call to call;
// the table is a constant of the plan. Addresses: x of every leaf, then the anchors, then the outputs, as far as the
// operation has them; a null output stands for a leaf that is only read.
template <int kCapacity>
struct Arguments {
  const Chunk* chunks;       // sorted by slot
  const void* coefficients;  // (slots, 2): a and b of elastic_net.h; float64 if wide_coefficients, else float32
  double* partials;          // (chunks, columns): scratch
  unsigned* ticket;          // scratch, zero before the first launch
  void* totals;              // (slots, columns), written; float64 if wide_totals, else float32 and uint32 counts
  float* one;                // written 1 (the echo); may be null
  const void* const* more;   // the addresses, if there are more than kCapacity; else null
  int chunk_count, slots, leaves;
  bool wide_coefficients, wide_totals;
  const void* addresses[kCapacity];

  __device__ const void* address(int i) const { return more ? more[i] : addresses[i]; }
};

template <int kColumns>
__device__ void merge(Found<kColumns>& into, const Found<kColumns>& other) {
#pragma unroll
  for (int c = 0; c < kColumns; ++c) into.column[c] = merged(c, into.column[c], other.column[c]);
}

template <int kColumns>
__device__ Found<kColumns> merge_across_warp(Found<kColumns> mine) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) {
    Found<kColumns> other;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) other.column[c] = __shfl_xor_sync(0xffffffffu, mine.column[c], lanes);
    merge(mine, other);
  }
  return mine;
}

// Thread 0 gets the result of the block, the same order every time.
template <int kColumns>
__device__ Found<kColumns> merge_across_block(Found<kColumns> mine, Found<kColumns> (&warps)[kWarps]) {
  mine = merge_across_warp(mine);
  __syncthreads();  // the last use of `warps` is over
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
  __syncthreads();
  Found<kColumns> total{};
  if (threadIdx.x == 0)
    for (int w = 0; w < kWarps; ++w) merge(total, warps[w]);
  return total;
}

// a and b for the slot of a chunk.
template <class F, class A>
__device__ void read_coefficients(const A& arg, const Chunk& chunk, F& a, F& b) {
  const int row = 2 * static_cast<int>(chunk.slot());
  if (arg.wide_coefficients) {
    const auto* s = static_cast<const double*>(arg.coefficients) + row;
    a = static_cast<F>(s[0]), b = static_cast<F>(s[1]);
  } else {
    const auto* s = static_cast<const float*>(arg.coefficients) + row;
    a = static_cast<F>(s[0]), b = static_cast<F>(s[1]);
  }
}

template <class T, Op kOp, bool kAnchored, class A>
__device__ Found<columns(kOp)> walk(const Chunk& chunk, const A& arg) {
  const auto leaf = static_cast<int>(chunk.leaf), length = static_cast<int>(chunk.length());
  const auto* x = static_cast<const T*>(arg.address(leaf)) + chunk.offset();
  const T* anchor = nullptr;
  if constexpr (kAnchored) anchor = static_cast<const T*>(arg.address(arg.leaves + leaf)) + chunk.offset();
  if constexpr (writes(kOp)) {
    if (auto* out = static_cast<T*>(const_cast<void*>(arg.address((kAnchored ? 2 : 1) * arg.leaves + leaf)))) {
      Walk<T, kOp, kAnchored> walk{{x, anchor, out + chunk.offset()}, {}, {}, chunk.has_l1(), chunk.has_l2()};
      read_coefficients(arg, chunk, walk.a, walk.b);
      return walk.run(length);
    }
  }
  Walk<T, reading(kOp), kAnchored> walk{{x, anchor, nullptr}, {}, {}, false, false};
  return walk.run(length);
}

// The one switch over dtypes in the CUDA code; a block takes one branch.
template <Op kOp, bool kAnchored, class A>
__device__ Found<columns(kOp)> walk_any(const Chunk& chunk, const A& arg) {
  switch (chunk.dtype()) {
    case DType::kFloat16:
      return walk<__half, kOp, kAnchored>(chunk, arg);
    case DType::kBFloat16:
      return walk<__nv_bfloat16, kOp, kAnchored>(chunk, arg);
    case DType::kFloat32:
      return walk<float, kOp, kAnchored>(chunk, arg);
    case DType::kFloat64:
      return walk<double, kOp, kAnchored>(chunk, arg);
    case DType::kFloat8E4M3:
      return walk<Float8E4M3, reading(kOp), kAnchored>(chunk, arg);
    case DType::kFloat8E5M2:
      return walk<Float8E5M2, reading(kOp), kAnchored>(chunk, arg);
  }
  __builtin_unreachable();  // the planner writes no other code
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

template <int kColumns, class A>
__device__ void write_totals(const A& arg, int slot, const Found<kColumns>& total) {
  for (int c = 0; c < kColumns; ++c) {
    const int i = kColumns * slot + c;
    if (arg.wide_totals)
      static_cast<double*>(arg.totals)[i] = total.column[c];
    else if (is_count(c))
      static_cast<uint32_t*>(arg.totals)[i] = narrow_count(total.column[c]);
    else
      static_cast<float*>(arg.totals)[i] = static_cast<float>(total.column[c]);
  }
}

// Partials of one slot by `threads` threads, of which this is number `rank`. Other blocks wrote them: past the L1.
template <int kColumns, class A>
__device__ Found<kColumns> merge_partials(const A& arg, int slot, int rank, int threads) {
  Found<kColumns> mine{};
  const int stop = first_chunk(arg.chunks, arg.chunk_count, slot + 1);
  for (int chunk = first_chunk(arg.chunks, arg.chunk_count, slot) + rank; chunk < stop; chunk += threads)
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
      mine.column[c] = merged(c, mine.column[c], __ldcg(arg.partials + kColumns * chunk + c));
  return mine;
}

// Few slots have many chunks each: the block takes one slot at a time. Many slots: a warp each.
template <int kColumns, class A>
__device__ void finalise(const A& arg, Found<kColumns> (&warps)[kWarps]) {
  const int thread = static_cast<int>(threadIdx.x);
  if (arg.slots <= kWarps) {
    for (int slot = 0; slot < arg.slots; ++slot) {
      const auto total = merge_across_block(merge_partials<kColumns>(arg, slot, thread, kThreads), warps);
      if (thread == 0) write_totals(arg, slot, total);
    }
    return;
  }
  for (int slot = thread / 32; slot < arg.slots; slot += kWarps) {
    const auto total = merge_across_warp(merge_partials<kColumns>(arg, slot, thread % 32, 32));
    if (thread % 32 == 0) write_totals(arg, slot, total);
  }
}

template <Op kOp, bool kAnchored, int kCapacity>
__global__ void __launch_bounds__(kThreads, blocks_of(kOp, kAnchored))
    penalty_kernel(const __grid_constant__ Arguments<kCapacity> arg) {
  constexpr int kColumns = columns(kOp);
  SMEM(Found<kColumns>, warps, [kWarps]);
  SMEM(bool, is_last, [1]);
  for (int c = static_cast<int>(blockIdx.x); c < arg.chunk_count; c += static_cast<int>(gridDim.x)) {
    const auto total = merge_across_block(walk_any<kOp, kAnchored>(arg.chunks[c], arg), warps);
    if (threadIdx.x == 0) memcpy(arg.partials + kColumns * c, total.column, sizeof total);
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
