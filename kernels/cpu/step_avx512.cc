#include "step_walk.h"

namespace fused_penalty::cpu {

StepChunk avx512_step(Step step, bool anchored) { return choose_step(step, anchored); }

}  // namespace fused_penalty::cpu
