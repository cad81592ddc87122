// XLA FFI handlers: check, convert, call the launcher.
//
//   sums      (table, leaf..., [anchor...])             -> sums (slots, 2), one ()
//   gradient  (table, strengths, leaf..., [anchor...])  -> sums (slots, 2), gradient...
//   prox      (table, strengths, leaf..., [anchor...])  -> sums (slots, 2), new leaf... (may lie where the leaf lies)
//   stats     (table, leaf..., [anchor...])             -> stats (slots, 5)
//
// Results are float64 or 32 bits wide; of the narrow stats the last two columns are the bits of uint32 counts.
// `one` is 1.0. A gradient multiplied by it depends on this call having read the parameters, so XLA
// may update donated parameters in place and needs no copy of them (docs/design.md, "the echo").
#include "jax_cpu.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "../kernels/cpu/launch.h"
#include "jax_arrays.h"

namespace fused_penalty {
namespace {

// XLA's own threads: they exist already, and the process has no more of them than the user allowed.
class XlaThreads final : public cpu::Helpers {
 public:
  explicit XlaThreads(ffi::ThreadPool pool) : pool_(pool) {}
  int available() const override { return static_cast<int>(pool_.num_threads()); }
  void start(cpu::Task task) override { pool_.Schedule(std::move(task)); }

 private:
  ffi::ThreadPool pool_;
};

// Reads (slots, 2) float32 or float64 numbers as double.
std::vector<double> read_doubles(const ffi::AnyBuffer& buffer) {
  const size_t n = buffer.element_count();
  if (buffer.element_type() == ffi::F64) {
    const auto* p = static_cast<const double*>(buffer.untyped_data());
    return {p, p + n};
  }
  const auto* p = static_cast<const float*>(buffer.untyped_data());
  return {p, p + n};
}

void write_totals(Op op, const std::vector<double>& totals, ffi::AnyBuffer out) {
  if (out.element_type() == ffi::F64) {
    std::copy(totals.begin(), totals.end(), static_cast<double*>(out.untyped_data()));
    return;
  }
  auto* to = static_cast<char*>(out.untyped_data());
  const size_t width = columns(op);
  for (size_t i = 0; i < totals.size(); ++i, to += 4) {
    const uint32_t count = narrow_count(totals[i]);
    const auto real = static_cast<float>(totals[i]);
    std::memcpy(to, is_count(i % width) ? static_cast<const void*>(&count) : &real, 4);
  }
}

ffi::Error run(Op op, ffi::ThreadPool pool, const ffi::Buffer<ffi::U32>& table, Arrays& call,
               const std::vector<double>& factors, ffi::Result<ffi::AnyBuffer> totals_out) {
  const auto* chunks = reinterpret_cast<const Chunk*>(table.untyped_data());
  const auto chunk_count = static_cast<int64_t>(table.element_count() * sizeof(uint32_t) / sizeof(Chunk));
  const auto slots = static_cast<int64_t>(totals_out->element_count() / columns(op));
  const auto leaves = static_cast<int64_t>(call.layouts.size());
  if (const int64_t i = first_misfit(chunks, chunk_count, call.layouts.data(), leaves, slots); i >= 0)
    return ffi::Error::InvalidArgument("fused_penalty: chunk " + std::to_string(i) + " of the plan does not fit leaf " +
                                       std::to_string(chunks[i].leaf));
  std::vector<double> totals(totals_out->element_count());
  XlaThreads threads(pool);
  cpu::launch(
      {op, chunks, chunk_count, call.x.data(), call.anchor.empty() ? nullptr : call.anchor.data(),
       call.out.empty() ? nullptr : call.out.data(), factors.empty() ? nullptr : factors.data(), totals.data(), slots},
      threads);
  write_totals(op, totals, *totals_out);
  return ffi::Error::Success();
}

ffi::Error sums(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, bool anchored,
                ffi::Result<ffi::AnyBuffer> sums_out, ffi::Result<ffi::BufferR0<ffi::F32>> one) {
  Arrays call = read_leaves(args, anchored);
  *one->typed_data() = 1;
  return run(Op::kSums, pool, table, call, {}, sums_out);
}

ffi::Error stats(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, bool anchored,
                 ffi::Result<ffi::AnyBuffer> stats_out) {
  Arrays call = read_leaves(args, anchored);
  return run(Op::kStats, pool, table, call, {}, stats_out);
}

template <Op kOp>
ffi::Error write(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::AnyBuffer strengths, ffi::RemainingArgs args,
                 bool anchored, ffi::Result<ffi::AnyBuffer> sums_out, ffi::RemainingRets written) {
  Arrays call = read_leaves(args, anchored);
  const auto factors = read_doubles(strengths);
  if (auto error = read_outputs(written, call); error.failure()) return error;
  if (strengths.element_count() != sums_out->element_count())
    return ffi::Error::InvalidArgument("fused_penalty: one pair of strengths a slot");
  return run(kOp, pool, table, call, factors, sums_out);
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltySumsCpu, fused_penalty::sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::BufferR0<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyStatsCpu, fused_penalty::stats,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>());

namespace fused_penalty {
namespace {
auto bind_write() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::Buffer<ffi::U32>>()
      .Arg<ffi::AnyBuffer>()
      .RemainingArgs()
      .Attr<bool>("anchored")
      .Ret<ffi::AnyBuffer>()
      .RemainingRets();
}
}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyGradientCpu, fused_penalty::write<fused_penalty::Op::kGradient>,
                              fused_penalty::bind_write());
XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyProxCpu, fused_penalty::write<fused_penalty::Op::kProx>,
                              fused_penalty::bind_write());
