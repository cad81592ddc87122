// The XLA FFI handlers of a step for CUDA, as jax_cuda.cc for the operations, and fit for command buffers like them.
#include "../kernels/cuda/step_launch.h"
#include "jax_cuda.h"
#include "jax_device.h"
#include "jax_steps.h"

namespace fused_penalty {
namespace {

ffi::Error run_step(cuda::Stream stream, int32_t device, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args,
                    int32_t step, bool anchored, ffi::RemainingRets results) {
  const auto launched = [&](const StepCall& call) {
    const auto chunks = static_cast<int>(call.chunk_count), leaves = static_cast<int>(call.x.size());
    check_scratch(*call.scratch, cuda::step_scratch_bytes(call.step, anchored, chunks, leaves));
    const auto data = [](auto& addresses) { return addresses.empty() ? nullptr : addresses.data(); };
    cuda::launch({call.step, call.chunks, chunks, call.x.data(), data(call.anchor), data(call.gradient),
                  data(call.first), data(call.second), data(call.maximum), call.wide_state.get(), leaves,
                  call.coefficients, call.wide_coefficients, call.scratch->untyped_data(), call.totals,
                  call.wide_totals, static_cast<int>(call.slots)},
                 {device, stream});
    return ffi::Error::Success();
  };
  return checked([&] { return check(StepOperands{table, args, step, anchored, results}, true); }, launched);
}

ffi::Error load_step(cuda::Stream stream, int32_t device, ffi::Buffer<ffi::U32>, ffi::RemainingArgs args, int32_t step,
                     bool anchored, ffi::RemainingRets) {
  return caught([&] {
    cuda::prepare(step_of(step), anchored, args.size() - 1, {device, stream});  // all but the coefficients
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyStepCuda, fused_penalty::run_step,
                              fused_penalty::device_binding<ffi::ExecutionStage::kExecute>("step"),
                              {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyStepCudaInitialize, fused_penalty::load_step,
                              fused_penalty::device_binding<ffi::ExecutionStage::kInitialize>("step"));
