// The CPU launcher of a step, as launch.h for the operations. Framework-free.
#pragma once

#include "../chunks.h"
#include "../steps.h"
#include "isa.h"
#include "parallel.h"

namespace fused_penalty::cpu {

struct StepLaunch {
  Step step;
  const Chunk* chunks;
  int64_t chunk_count;
  void* const* x;  // one address per leaf; so are the others, null where the step has no such array
  const void* const* anchor;
  const void* const* gradient;  // a null address: that leaf is only read
  void* const* first;
  void* const* second;
  void* const* maximum;
  const bool* wide_state;      // per leaf: whether the state of a 16-bit leaf is float32
  const double* coefficients;  // (slots, kStepCoefficients)
  double* totals;              // (slots, kStepColumns), written
  int64_t slot_count;
};

void launch(const StepLaunch&, Helpers&, Isa isa = best_isa());

}  // namespace fused_penalty::cpu
