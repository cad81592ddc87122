// The XLA FFI handler of a step for CPUs: check, convert, call the launcher.
#include <vector>

#include "../kernels/cpu/step_launch.h"
#include "jax_cpu.h"
#include "jax_host.h"
#include "jax_steps.h"

namespace fused_penalty {
namespace {

ffi::Error run_step(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, int32_t step,
                    bool anchored, ffi::RemainingRets results) {
  const auto launched = [&](const StepCall& call) {
    check_chunks(call.chunks, call.chunk_count, call.layouts, call.slots);
    const size_t slots = call.slots;
    const auto coefficients = read_doubles(call.coefficients, kStepCoefficients * slots, call.wide_coefficients);
    std::vector<double> totals(slots * kStepColumns);
    const auto data = [](auto& addresses) { return addresses.empty() ? nullptr : addresses.data(); };
    XlaThreads threads(pool);
    cpu::launch({call.step, call.chunks, call.chunk_count, call.x.data(), data(call.anchor), data(call.gradient),
                 data(call.first), data(call.second), data(call.maximum), call.wide_state.get(), coefficients.data(),
                 totals.data(), call.slots},
                threads);
    write_totals(totals, kStepColumns, call.totals, call.wide_totals, is_step_count);
    return ffi::Error::Success();
  };
  return checked([&] { return check(StepOperands{table, args, step, anchored, results}, false); }, launched);
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyStepCpu, fused_penalty::run_step,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<int32_t>("step")
                                  .Attr<bool>("anchored")
                                  .RemainingRets());
