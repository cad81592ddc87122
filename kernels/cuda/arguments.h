// What a launch passes to its kernel, and how addresses get there when they are too many. The host and the kernels
// share it.
#pragma once

#include <cstddef>

#include "../chunks.h"

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
};

// For models with more addresses than a launch holds: puts some of them into the table `more`.
template <int kCapacity>
struct SomeAddresses {
  const void** to;
  int count;
  const void* addresses[kCapacity];
};

// A launch holds 4 KB of arguments on every driver, 32,764 bytes since CUDA 12.1.
constexpr int kFew = 480, kMany = 4080;
static_assert(sizeof(Arguments<kFew>) <= 4096 && sizeof(Arguments<kMany>) <= 32764);

}  // namespace fused_penalty::cuda
