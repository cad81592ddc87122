// The XLA FFI handler for CUDA: check, convert, call the launcher. All operands and results lie on the device, the
// table too, whose chunks cannot be checked here therefore.
//
// The handler is fit for XLA's command buffers (CUDA graphs): XLA calls it once, records what it launches and replays
// that until a buffer of the call has moved. So memory that a launch uses must be the call's own, an operand or a
// result. What a handler allocates itself (ffi::ScratchAllocator) is freed when it returns, and belongs to others when
// the replay writes into it.
#include "jax_cuda.h"

#include "jax_arrays.h"
#include "jax_device.h"

namespace fused_penalty {
namespace {

ffi::Error run(cudaStream_t stream, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, int32_t op, bool anchored,
               ffi::RemainingRets results) {
  const auto launched = [&](const Call& call) {
    std::vector<const void*> addresses = call.x;
    addresses.insert(addresses.end(), call.anchor.begin(), call.anchor.end());
    addresses.insert(addresses.end(), call.out.begin(), call.out.end());
    const auto chunks = static_cast<int>(call.chunk_count);
    check_scratch(*call.scratch, cuda::scratch_bytes(call.op, chunks, static_cast<int>(addresses.size())));
    return to_ffi(
        cuda::launch({call.op, anchored, call.chunks, chunks, addresses.data(), static_cast<int>(call.x.size()),
                      call.coefficients, call.wide_coefficients, call.scratch->untyped_data(), call.totals,
                      call.wide_totals, static_cast<int>(call.slots), call.one},
                     stream));
  };
  return checked([&] { return check(Operands{table, args, op, anchored, results}, true); }, launched);
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyCuda, fused_penalty::run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<int32_t>("op")
                                  .Attr<bool>("anchored")
                                  .RemainingRets(),
                              {ffi::Traits::kCmdBufferCompatible});
