// The XLA FFI handlers for CUDA: check, convert, call the launcher. All operands and results lie on the device, the
// table too, whose chunks cannot be checked here therefore.
//
// The handler is fit for XLA's command buffers (CUDA graphs): XLA calls it once, records what it launches and replays
// that until a buffer of the call has moved. So memory that a launch uses must be the call's own, an operand or a
// result. What a handler allocates itself (ffi::ScratchAllocator) is freed when it returns, and belongs to others when
// the replay writes into it. And nothing may be loaded while XLA records: that is the stage before, `initialize`, of
// which XLA asks once for each execution, so it looks at counts alone.
#include "jax_cuda.h"

#include "jax_arrays.h"
#include "jax_device.h"

namespace fused_penalty {
namespace {

ffi::Error run(cuda::Stream stream, int32_t device, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, int32_t op,
               bool anchored, ffi::RemainingRets results) {
  const auto launched = [&](const Call& call) {
    std::vector<const void*> addresses = call.x;
    addresses.insert(addresses.end(), call.anchor.begin(), call.anchor.end());
    addresses.insert(addresses.end(), call.out.begin(), call.out.end());
    const auto chunks = static_cast<int>(call.chunk_count);
    check_scratch(*call.scratch, cuda::scratch_bytes(call.op, chunks, static_cast<int>(addresses.size())));
    cuda::launch({call.op, anchored, call.chunks, chunks, addresses.data(), static_cast<int>(call.x.size()),
                  call.coefficients, call.wide_coefficients, call.scratch->untyped_data(), call.totals,
                  call.wide_totals, static_cast<int>(call.slots), call.one},
                 {device, stream});
    return ffi::Error::Success();
  };
  return checked([&] { return check(Operands{table, args, op, anchored, results}, true); }, launched);
}

ffi::Error load(cuda::Stream stream, int32_t device, ffi::Buffer<ffi::U32>, ffi::RemainingArgs args, int32_t code,
                bool anchored, ffi::RemainingRets results) {
  return caught([&] {
    const Op op = op_of(code);
    const size_t written = writes(op) ? results.size() - 2 : 0;  // all but totals and scratch
    cuda::prepare(op, anchored, args.size() - (writes(op) ? 1 : 0) + written, {device, stream});
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyCuda, fused_penalty::run,
                              fused_penalty::device_binding<ffi::ExecutionStage::kExecute>("op"),
                              {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyCudaInitialize, fused_penalty::load,
                              fused_penalty::device_binding<ffi::ExecutionStage::kInitialize>("op"));
