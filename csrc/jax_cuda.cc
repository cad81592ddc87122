// XLA FFI handlers for CUDA: check, convert, call the launcher. Operands and results as in jax_cpu.cc; all of them lie
// on the device, the table too, whose chunks cannot be checked here therefore. No allocation but XLA's scratch, and fit
// for XLA's command buffers (CUDA graphs).
#include "jax_cuda.h"

#include "../kernels/cuda/launch.h"
#include "jax_arrays.h"

namespace fused_penalty {
namespace {

using Stream = cudaStream_t;

ffi::Error run(const Operands& given, Stream stream, ffi::ScratchAllocator& scratch, float* one) {
  return checked(given, [&](const Call& call) {
    std::vector<const void*> addresses = call.x;
    addresses.insert(addresses.end(), call.anchor.begin(), call.anchor.end());
    addresses.insert(addresses.end(), call.out.begin(), call.out.end());
    const auto chunks = static_cast<int>(call.chunk_count);
    const auto space = scratch.Allocate(cuda::scratch_bytes(given.op, chunks, static_cast<int>(addresses.size())));
    if (!space) return ffi::Error::Internal("fused_penalty: no scratch memory for the partial sums");
    const auto status = cuda::launch(
        {given.op, given.anchored, call.chunks, chunks, addresses.data(), static_cast<int>(call.x.size()),
         given.strengths ? given.strengths->untyped_data() : nullptr,
         given.strengths && given.strengths->element_type() == ffi::F64, *space, given.totals.untyped_data(),
         given.totals.element_type() == ffi::F64, static_cast<int>(call.slots), one},
        stream);
    if (status.where)
      return ffi::Error::Internal(std::string("fused_penalty: ") + status.where + ": " +
                                  cudaGetErrorString(status.error));
    return ffi::Error::Success();
  });
}

ffi::Error sums(Stream stream, ffi::ScratchAllocator scratch, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args,
                bool anchored, ffi::Result<ffi::AnyBuffer> sums_out, ffi::Result<ffi::BufferR0<ffi::F32>> one) {
  return run({Op::kSums, table, {}, args, anchored, *sums_out, {}}, stream, scratch, one->typed_data());
}

ffi::Error stats(Stream stream, ffi::ScratchAllocator scratch, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args,
                 bool anchored, ffi::Result<ffi::AnyBuffer> stats_out) {
  return run({Op::kStats, table, {}, args, anchored, *stats_out, {}}, stream, scratch, nullptr);
}

template <Op kOp>
ffi::Error write(Stream stream, ffi::ScratchAllocator scratch, ffi::Buffer<ffi::U32> table, ffi::AnyBuffer strengths,
                 ffi::RemainingArgs args, bool anchored, ffi::Result<ffi::AnyBuffer> sums_out,
                 ffi::RemainingRets outputs) {
  return run({kOp, table, strengths, args, anchored, *sums_out, outputs}, stream, scratch, nullptr);
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltySumsCuda, fused_penalty::sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Ctx<ffi::ScratchAllocator>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::BufferR0<ffi::F32>>(),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyStatsCuda, fused_penalty::stats,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Ctx<ffi::ScratchAllocator>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>(),
                              {ffi::Traits::kCmdBufferCompatible});

namespace fused_penalty {
namespace {
auto bind_write() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::PlatformStream<cudaStream_t>>()
      .Ctx<ffi::ScratchAllocator>()
      .Arg<ffi::Buffer<ffi::U32>>()
      .Arg<ffi::AnyBuffer>()
      .RemainingArgs()
      .Attr<bool>("anchored")
      .Ret<ffi::AnyBuffer>()
      .RemainingRets();
}
}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyGradientCuda, fused_penalty::write<fused_penalty::Op::kGradient>,
                              fused_penalty::bind_write(), {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyProxCuda, fused_penalty::write<fused_penalty::Op::kProx>,
                              fused_penalty::bind_write(), {ffi::Traits::kCmdBufferCompatible});
