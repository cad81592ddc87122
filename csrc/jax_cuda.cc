// XLA FFI handlers for CUDA: check, convert, call the launcher. Operands and results as in jax_cpu.cc, and one result
// more: scratch memory, u8[n], before the outputs. All of them lie on the device, the table too, whose chunks cannot be
// checked here therefore.
//
// The handlers are fit for XLA's command buffers (CUDA graphs): XLA calls one of them once, records what it launches
// and replays that until a buffer of the call has moved. So memory that a launch uses must be the call's own, an
// operand or a result. What a handler allocates itself (ffi::ScratchAllocator) is freed when it returns, and belongs to
// others when the replay writes into it.
#include "jax_cuda.h"

#include "../kernels/cuda/launch.h"
#include "jax_arrays.h"

namespace fused_penalty {
namespace {

using Stream = cudaStream_t;

using Scratch = ffi::Buffer<ffi::U8>;
constexpr uintptr_t kScratchAlignment = 16;

ffi::Error run(const Operands& given, Stream stream, Scratch scratch, float* one) {
  return checked(given, [&](const Call& call) {
    std::vector<const void*> addresses = call.x;
    addresses.insert(addresses.end(), call.anchor.begin(), call.anchor.end());
    addresses.insert(addresses.end(), call.out.begin(), call.out.end());
    const auto chunks = static_cast<int>(call.chunk_count);
    const size_t needed = cuda::scratch_bytes(given.op, chunks, static_cast<int>(addresses.size()));
    if (scratch.size_bytes() < needed)
      return ffi::Error::InvalidArgument("fused_penalty: scratch must have " + std::to_string(needed) + " bytes, not " +
                                         std::to_string(scratch.size_bytes()));
    if (reinterpret_cast<uintptr_t>(scratch.untyped_data()) % kScratchAlignment)
      return ffi::Error::InvalidArgument("fused_penalty: scratch must lie at a multiple of 16 bytes");
    const auto status = cuda::launch(
        {given.op, given.anchored, call.chunks, chunks, addresses.data(), static_cast<int>(call.x.size()),
         given.strengths ? given.strengths->untyped_data() : nullptr,
         given.strengths && given.strengths->element_type() == ffi::F64, scratch.untyped_data(),
         given.totals.untyped_data(), given.totals.element_type() == ffi::F64, static_cast<int>(call.slots), one},
        stream);
    if (status.where)
      return ffi::Error::Internal(std::string("fused_penalty: ") + status.where + ": " +
                                  cudaGetErrorString(status.error));
    return ffi::Error::Success();
  });
}

ffi::Error sums(Stream stream, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, bool anchored,
                ffi::Result<ffi::AnyBuffer> sums_out, ffi::Result<ffi::BufferR0<ffi::F32>> one,
                ffi::Result<Scratch> scratch) {
  return run({Op::kSums, table, {}, args, anchored, *sums_out, {}}, stream, *scratch, one->typed_data());
}

ffi::Error stats(Stream stream, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, bool anchored,
                 ffi::Result<ffi::AnyBuffer> stats_out, ffi::Result<Scratch> scratch) {
  return run({Op::kStats, table, {}, args, anchored, *stats_out, {}}, stream, *scratch, nullptr);
}

template <Op kOp>
ffi::Error write(Stream stream, ffi::Buffer<ffi::U32> table, ffi::AnyBuffer strengths, ffi::RemainingArgs args,
                 bool anchored, ffi::Result<ffi::AnyBuffer> sums_out, ffi::Result<Scratch> scratch,
                 ffi::RemainingRets outputs) {
  return run({kOp, table, strengths, args, anchored, *sums_out, outputs}, stream, *scratch, nullptr);
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltySumsCuda, fused_penalty::sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::BufferR0<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::U8>>(),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyStatsCuda, fused_penalty::stats,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::U8>>(),
                              {ffi::Traits::kCmdBufferCompatible});

namespace fused_penalty {
namespace {
auto bind_write() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::PlatformStream<cudaStream_t>>()
      .Arg<ffi::Buffer<ffi::U32>>()
      .Arg<ffi::AnyBuffer>()
      .RemainingArgs()
      .Attr<bool>("anchored")
      .Ret<ffi::AnyBuffer>()
      .Ret<ffi::Buffer<ffi::U8>>()
      .RemainingRets();
}
}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyGradientCuda, fused_penalty::write<fused_penalty::Op::kGradient>,
                              fused_penalty::bind_write(), {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyProxCuda, fused_penalty::write<fused_penalty::Op::kProx>,
                              fused_penalty::bind_write(), {ffi::Traits::kCmdBufferCompatible});
