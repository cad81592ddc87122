// What a launch passes to its kernel, and how addresses get there when they are too many.
#pragma once

#include "../chunks.h"
#include "device.h"

namespace fused_penalty::cuda {

constexpr int kThreads = 256;

// Everything of a launch, by value, so that a captured graph can replay it. Only addresses change from call to call;
// the table is a constant of the plan. Addresses: array by array those of every leaf, x first; kernel.h and
// step_kernel.h say which follow.
template <int kCapacity>
struct Arguments {
  const Chunk* chunks;       // sorted by slot
  const void* coefficients;  // a row for each slot; float64 if wide_coefficients, else float32
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
