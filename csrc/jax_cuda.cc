// XLA FFI handlers for CUDA: check, convert, call the launcher. Operands and results as in jax_cpu.cc; all of them lie
// on the device, the table too. No allocation but XLA's scratch, and fit for XLA's command buffers (CUDA graphs).
#include "jax_cuda.h"

#include "../kernels/cuda/launch.h"
#include "jax_arrays.h"

namespace fused_penalty {
namespace {

using Stream = cudaStream_t;

ffi::Error run(Op op, Stream stream, ffi::ScratchAllocator& scratch, const ffi::Buffer<ffi::U32>& table,
               const Arrays& arrays, const void* strengths, bool wide_strengths, ffi::Result<ffi::AnyBuffer> totals_out,
               float* one) {
  std::vector<const void*> addresses = arrays.x;
  addresses.insert(addresses.end(), arrays.anchor.begin(), arrays.anchor.end());
  addresses.insert(addresses.end(), arrays.out.begin(), arrays.out.end());
  const auto chunks = static_cast<int>(table.element_count() * sizeof(uint32_t) / sizeof(Chunk));
  const auto space = scratch.Allocate(cuda::scratch_bytes(op, chunks, static_cast<int>(addresses.size())));
  if (!space) return ffi::Error::Internal("fused_penalty: no scratch memory for the partial sums");
  const auto status = cuda::launch(
      {op, !arrays.anchor.empty(), reinterpret_cast<const Chunk*>(table.untyped_data()), chunks, addresses.data(),
       static_cast<int>(arrays.x.size()), strengths, wide_strengths, *space, totals_out->untyped_data(),
       totals_out->element_type() == ffi::F64, static_cast<int>(totals_out->element_count() / columns(op)), one},
      stream);
  if (status.where)
    return ffi::Error::Internal(std::string("fused_penalty: ") + status.where + ": " +
                                cudaGetErrorString(status.error));
  return ffi::Error::Success();
}

// A dtype without a kernel has layout 0; a float16 leaf without elements too, and both have no chunk.
ffi::Error check_leaves(const Arrays& arrays, ffi::RemainingArgs args) {
  for (size_t i = 0; i < arrays.layouts.size(); ++i)
    if (arrays.layouts[i] == 0 && args.get<ffi::AnyBuffer>(i)->element_count())
      return ffi::Error::InvalidArgument("fused_penalty: leaf " + std::to_string(i) + " has a dtype without a kernel");
  return ffi::Error::Success();
}

ffi::Error sums(Stream stream, ffi::ScratchAllocator scratch, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args,
                bool anchored, ffi::Result<ffi::AnyBuffer> sums_out, ffi::Result<ffi::BufferR0<ffi::F32>> one) {
  const Arrays arrays = read_leaves(args, anchored);
  if (auto error = check_leaves(arrays, args); error.failure()) return error;
  return run(Op::kSums, stream, scratch, table, arrays, nullptr, false, sums_out, one->typed_data());
}

ffi::Error stats(Stream stream, ffi::ScratchAllocator scratch, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args,
                 bool anchored, ffi::Result<ffi::AnyBuffer> stats_out) {
  const Arrays arrays = read_leaves(args, anchored);
  if (auto error = check_leaves(arrays, args); error.failure()) return error;
  return run(Op::kStats, stream, scratch, table, arrays, nullptr, false, stats_out, nullptr);
}

template <Op kOp>
ffi::Error write(Stream stream, ffi::ScratchAllocator scratch, ffi::Buffer<ffi::U32> table, ffi::AnyBuffer strengths,
                 ffi::RemainingArgs args, bool anchored, ffi::Result<ffi::AnyBuffer> sums_out,
                 ffi::RemainingRets written) {
  Arrays arrays = read_leaves(args, anchored);
  if (auto error = check_leaves(arrays, args); error.failure()) return error;
  if (auto error = read_outputs(written, arrays); error.failure()) return error;
  return run(kOp, stream, scratch, table, arrays, strengths.untyped_data(), strengths.element_type() == ffi::F64,
             sums_out, nullptr);
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
