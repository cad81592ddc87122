// The step over a chunk, by instruction set.
#pragma once

#include "../chunks.h"
#include "../steps.h"
#include "isa.h"

namespace fused_penalty::cpu {

using StepFound = Found<kStepColumns>;

// The arrays of one leaf; null where the step has none.
struct StepArrays {
  void *x, *anchor, *gradient, *first, *second, *maximum;
  bool wide_state;  // whether the state of a 16-bit leaf is float32; else it has the leaf's dtype
};

using StepChunk = StepFound (*)(const Chunk&, const StepArrays&, const double* coefficients);

StepChunk portable_step(Step, bool anchored);
StepChunk avx2_step(Step, bool anchored);
StepChunk avx512_step(Step, bool anchored);
StepChunk step_for(Isa, Step, bool anchored);

}  // namespace fused_penalty::cpu
