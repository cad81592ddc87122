#include "step_isa.h"

namespace fused_penalty::cpu {

#if defined(__x86_64__)
StepChunk step_for(Isa isa, Step step, bool anchored) {
  if (isa == Isa::kAvx512) return avx512_step(step, anchored);
  if (isa == Isa::kAvx2) return avx2_step(step, anchored);
  return portable_step(step, anchored);
}
#else
StepChunk step_for(Isa, Step step, bool anchored) { return portable_step(step, anchored); }
#endif

}  // namespace fused_penalty::cpu
