// The XLA FFI handler of a step for CUDA, as jax_cuda.cc for the operations, and fit for command buffers like it.
#include "../kernels/cuda/step_launch.h"
#include "jax_cuda.h"
#include "jax_device.h"
#include "jax_steps.h"

namespace fused_penalty {
namespace {

ffi::Error run_step(cudaStream_t stream, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, int32_t step,
                    bool anchored, ffi::RemainingRets results) {
  const auto launched = [&](const StepCall& call) {
    const auto chunks = static_cast<int>(call.chunk_count), leaves = static_cast<int>(call.x.size());
    check_scratch(*call.scratch, cuda::step_scratch_bytes(call.step, anchored, chunks, leaves));
    const auto data = [](auto& addresses) { return addresses.empty() ? nullptr : addresses.data(); };
    return to_ffi(cuda::launch({call.step, call.chunks, chunks, call.x.data(), data(call.anchor), data(call.gradient),
                                data(call.first), data(call.second), data(call.maximum), call.wide_state.get(), leaves,
                                call.coefficients, call.wide_coefficients, call.scratch->untyped_data(), call.totals,
                                call.wide_totals, static_cast<int>(call.slots)},
                               stream));
  };
  return checked([&] { return check(StepOperands{table, args, step, anchored, results}, true); }, launched);
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyStepCuda, fused_penalty::run_step,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<int32_t>("step")
                                  .Attr<bool>("anchored")
                                  .RemainingRets(),
                              {ffi::Traits::kCmdBufferCompatible});
