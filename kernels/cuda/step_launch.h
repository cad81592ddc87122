// The CUDA launcher of a step, as launch.h for the operations: one launch, framework-free, fit for a capture.
#pragma once

#include "../steps.h"
#include "launch.h"

namespace fused_penalty::cuda {

struct StepLaunch {
  Step step;
  const Chunk* chunks;  // on the device, sorted by slot
  int chunk_count;
  void* const* x;  // on the host: an address for each leaf; so are the others, null where the step has no such array
  const void* const* anchor;
  const void* const* gradient;  // a null address: that leaf is only read
  void* const* first;
  void* const* second;
  void* const* maximum;
  const bool* wide_state;  // on the host, per leaf: whether the state of a 16-bit leaf is float32
  int leaves;
  const void* coefficients;  // on the device: (slots, kStepCoefficients)
  bool wide_coefficients;    // float64, else float32
  void* scratch;             // on the device, at a multiple of 16 bytes: step_scratch_bytes
  void* totals;              // on the device: (slots, kStepColumns), written
  bool wide_totals;          // float64, else float32 and uint32 counts
  int slots;
};

size_t step_scratch_bytes(Step, bool anchored, int chunk_count, int leaves);

void launch(const StepLaunch&, const Queue&);

void prepare(Step, bool anchored, size_t addresses, const Queue&);

}  // namespace fused_penalty::cuda
