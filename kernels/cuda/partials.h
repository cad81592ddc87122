// What the chunks of a launch have in common: blocks take them in turn, and the last block to finish adds up the
// partial sums of each slot, in the order of the table. No float atomics, so the result does not depend on the grid or
// on timing.
//
// `Columns` says what is found: kCount columns, how two parts of one make one (`merged`), and which of them count
// (`is_count`).
#pragma once

#include <cstring>

#include "arguments.h"
#include "device.h"

namespace fused_penalty::cuda {

constexpr int kWarps = kThreads / 32;

template <class Columns>
using FoundIn = Found<Columns::kCount>;

template <class Columns>
__device__ void merge(FoundIn<Columns>& into, const FoundIn<Columns>& other) {
#pragma unroll
  for (int c = 0; c < Columns::kCount; ++c) into.column[c] = Columns::merged(c, into.column[c], other.column[c]);
}

template <class Columns>
__device__ FoundIn<Columns> merge_across_warp(FoundIn<Columns> mine) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) {
    FoundIn<Columns> other;
#pragma unroll
    for (int c = 0; c < Columns::kCount; ++c) other.column[c] = __shfl_xor_sync(0xffffffffu, mine.column[c], lanes);
    merge<Columns>(mine, other);
  }
  return mine;
}

// Thread 0 gets the result of the block, the same order every time.
template <class Columns>
__device__ FoundIn<Columns> merge_across_block(FoundIn<Columns> mine, FoundIn<Columns> (&warps)[kWarps]) {
  mine = merge_across_warp<Columns>(mine);
  __syncthreads();  // the last use of `warps` is over
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
  __syncthreads();
  FoundIn<Columns> total{};
  if (threadIdx.x == 0)
    for (int w = 0; w < kWarps; ++w) merge<Columns>(total, warps[w]);
  return total;
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

template <class Columns, class A>
__device__ void write_totals(const A& arg, int slot, const FoundIn<Columns>& total) {
  for (int c = 0; c < Columns::kCount; ++c) {
    const int i = Columns::kCount * slot + c;
    if (arg.wide_totals)
      static_cast<double*>(arg.totals)[i] = total.column[c];
    else if (Columns::is_count(c))
      static_cast<uint32_t*>(arg.totals)[i] = narrow_count(total.column[c]);
    else
      static_cast<float*>(arg.totals)[i] = static_cast<float>(total.column[c]);
  }
}

// Partials of one slot by `threads` threads, of which this is number `rank`. Other blocks wrote them: past the L1.
template <class Columns, class A>
__device__ FoundIn<Columns> merge_partials(const A& arg, int slot, int rank, int threads) {
  FoundIn<Columns> mine{};
  const int stop = first_chunk(arg.chunks, arg.chunk_count, slot + 1);
  for (int chunk = first_chunk(arg.chunks, arg.chunk_count, slot) + rank; chunk < stop; chunk += threads)
#pragma unroll
    for (int c = 0; c < Columns::kCount; ++c)
      mine.column[c] = Columns::merged(c, mine.column[c], __ldcg(arg.partials + Columns::kCount * chunk + c));
  return mine;
}

// Few slots have many chunks each: the block takes one slot at a time. Many slots: a warp each.
template <class Columns, class A>
__device__ void finalise(const A& arg, FoundIn<Columns> (&warps)[kWarps]) {
  const int thread = static_cast<int>(threadIdx.x);
  if (arg.slots <= kWarps) {
    for (int slot = 0; slot < arg.slots; ++slot) {
      const auto total = merge_across_block<Columns>(merge_partials<Columns>(arg, slot, thread, kThreads), warps);
      if (thread == 0) write_totals<Columns>(arg, slot, total);
    }
    return;
  }
  for (int slot = thread / 32; slot < arg.slots; slot += kWarps) {
    const auto total = merge_across_warp<Columns>(merge_partials<Columns>(arg, slot, thread % 32, 32));
    if (thread % 32 == 0) write_totals<Columns>(arg, slot, total);
  }
}

// All of a kernel: `walk(chunk)` gives this thread's share of what is found in a chunk.
// Inlined: nvcc would call it in a large kernel, and pass `walk` through memory.
template <class Columns, class A, class WalkChunk>
__device__ __forceinline__ void over_chunks(const A& arg, const WalkChunk& walk) {
  SMEM(FoundIn<Columns>, warps, [kWarps]);
  SMEM(bool, is_last, [1]);
  for (int c = static_cast<int>(blockIdx.x); c < arg.chunk_count; c += static_cast<int>(gridDim.x)) {
    const auto total = merge_across_block<Columns>(walk(arg.chunks[c]), warps);
    if (threadIdx.x == 0) memcpy(arg.partials + Columns::kCount * c, total.column, sizeof total);
  }
  if (threadIdx.x == 0) {
    __threadfence();  // this block's partials before its ticket ...
    is_last[0] = atomicAdd(arg.ticket, 1u) == gridDim.x - 1;
    __threadfence();  // ... and all tickets before the last block's reads
  }
  __syncthreads();
  if (!is_last[0]) return;
  finalise<Columns>(arg, warps);
  if (threadIdx.x == 0 && arg.one) *arg.one = 1;
}

}  // namespace fused_penalty::cuda
