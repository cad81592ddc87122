#include "launcher.h"
#include "step_kernel.h"
#include "step_launch.h"

namespace fused_penalty::cuda {
namespace {

// One size of arguments, the largest: a step moves so much that 32 KB of addresses do not matter, and a second one
// would double what is compiled.
template <Step kStep, bool kAnchored>
Status run_step(const StepLaunch& call, cudaStream_t stream) {
  static Residents residents;
  // In the order of the addresses of step_kernel.h.
  const void* const* arrays[step_arrays(kStep, kAnchored)];
  int count = 0;
  const auto take = [&](bool there, const void* const* array) {
    if (there) arrays[count++] = array;
  };
  take(true, call.x);
  take(kAnchored, call.anchor);
  take(has(kStep, kGradient), call.gradient);
  take(has(kStep, kFirst), call.first);
  take(has(kStep, kSecond), call.second);
  take(has(kStep, kMaximum), call.maximum);
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
  return run(step_kernel<kStep, kAnchored, kMany>, residents, arg, kStepColumns, call.scratch,
             call.leaves * step_arrays(kStep, kAnchored), address, stream);
}

}  // namespace

size_t step_scratch_bytes(Step step, bool anchored, int chunk_count, int leaves) {
  return scratch_bytes(kStepColumns, chunk_count, leaves * step_arrays(step, anchored));
}

Status launch(const StepLaunch& call, cudaStream_t stream) {
  return reported(visit(call.step, [&]<Step kStep>() {
    return call.anchor ? run_step<kStep, true>(call, stream) : run_step<kStep, false>(call, stream);
  }));
}

}  // namespace fused_penalty::cuda
