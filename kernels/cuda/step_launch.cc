#include "step_launch.h"

#include "launcher.h"
#include "step_arguments.h"

namespace fused_penalty::cuda {

size_t step_scratch_bytes(Step step, bool anchored, int chunk_count, int leaves) {
  return scratch_bytes(kStepColumns, chunk_count, leaves * step_arrays(step, anchored));
}

// One size of arguments, the largest: a step moves so much that 32 KB of addresses do not matter, and a second one
// would double what is compiled.
void launch(const StepLaunch& call, const Queue& queue) {
  // In the order of step_arguments.h.
  const void* const* arrays[2 + kStepRoles];
  int count = 0;
  const auto take = [&](bool there, const void* const* array) {
    if (there) arrays[count++] = array;
  };
  take(true, call.x);
  take(call.anchor, call.anchor);
  take(has(call.step, kGradient), call.gradient);
  take(has(call.step, kFirst), call.first);
  take(has(call.step, kSecond), call.second);
  take(has(call.step, kMaximum), call.maximum);
  const auto address = [&](int i) -> const void* {
    const int array = i / call.leaves, leaf = i % call.leaves;
    const auto at = reinterpret_cast<uintptr_t>(arrays[array][leaf]);
    return reinterpret_cast<const void*>(array == 0 && call.wide_state[leaf] ? at | kWideState : at);
  };
  Arguments<kMany> arg{call.chunks,
                       call.coefficients,
                       nullptr,
                       nullptr,
                       call.totals,
                       nullptr,
                       nullptr,
                       call.chunk_count,
                       call.slots,
                       call.leaves,
                       call.wide_coefficients,
                       call.wide_totals,
                       {}};
  run(kernel_of(call.step, call.anchor), arg, kStepColumns, call.scratch, call.leaves * count, address, queue);
}

void prepare(Step step, bool anchored, size_t addresses, const Queue& queue) {
  prepare_kernels(kernel_of(step, anchored), addresses, queue);
}

}  // namespace fused_penalty::cuda
