// The CPU launcher: raw pointers, a plan's table of chunks and a source of helpers in; sums and arrays
// out. Framework-free.
#pragma once

#include <cstdint>

#include "../chunks.h"
#include "isa.h"
#include "parallel.h"

namespace fused_penalty::cpu {

struct Launch {
  Op op;
  const Chunk* chunks;
  int64_t chunk_count;
  const void* const* x;        // one address per leaf
  const void* const* anchor;   // the same, or null
  void* const* out;            // the same, or null if nothing is written; a null address: that leaf is only read
  const double* coefficients;  // (slots, 2): a and b of elastic_net.h, or null if nothing is written
  double* totals;              // (slots, columns(op)), written
  int64_t slot_count;
};

// The partial results of chunks are added to their slots in the order of the table, whichever thread
// made them.
void launch(const Launch&, Helpers&, Isa isa = best_isa());

}  // namespace fused_penalty::cpu
