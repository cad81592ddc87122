#include "step_launch.h"

#include "../step_formula.h"
#include "over_chunks.h"
#include "step_isa.h"

namespace fused_penalty::cpu {

void launch(const StepLaunch& call, Helpers& pool, Isa isa) {
  const bool anchored = call.anchor != nullptr;
  const StepChunk step = step_for(isa, call.step, anchored);
  const WalkChunk read = walk_for(isa, Op::kSums, anchored);
  const auto each = [&](const Chunk& chunk) noexcept -> StepFound {
    const auto of = [&chunk](const auto* arrays) -> void* {
      return arrays ? const_cast<void*>(static_cast<const void*>(arrays[chunk.leaf])) : nullptr;
    };
    const double* c = call.coefficients + kStepCoefficients * chunk.slot();
    const StepArrays arrays{of(call.x),      of(call.anchor),  of(call.gradient),          of(call.first),
                            of(call.second), of(call.maximum), call.wide_state[chunk.leaf]};
    const bool writes =
        value_of(c, StepCoefficient::skip) == 0 && (decides(call.step) == kGradient ? arrays.gradient : arrays.second);
    if (writes) return step(chunk, arrays, c);
    const Stats sums = read(chunk, {arrays.x, arrays.anchor, nullptr}, nullptr);
    return {{sums.column[kAbs], sums.column[kSquare]}};
  };
  over_chunks<StepFound>({call.chunks, call.chunk_count, call.slot_count}, kStepColumns, call.totals, pool, each,
                         [](int, double a, double b) { return a + b; });
}

}  // namespace fused_penalty::cpu
