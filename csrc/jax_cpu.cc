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

ffi::Error run(const Operands& given, ffi::ThreadPool pool) {
  return checked(given, [&](const Call& call) {
    const auto leaves = static_cast<int64_t>(call.layouts.size());
    if (const int64_t i = first_misfit(call.chunks, call.chunk_count, call.layouts.data(), leaves, call.slots); i >= 0)
      return ffi::Error::InvalidArgument("fused_penalty: chunk " + std::to_string(i) +
                                         " of the plan does not fit leaf " + std::to_string(call.chunks[i].leaf));
    const auto factors = given.strengths ? read_doubles(*given.strengths) : std::vector<double>();
    std::vector<double> totals(given.totals.element_count());
    XlaThreads threads(pool);
    cpu::launch({given.op, call.chunks, call.chunk_count, call.x.data(), given.anchored ? call.anchor.data() : nullptr,
                 writes(given.op) ? call.out.data() : nullptr, writes(given.op) ? factors.data() : nullptr,
                 totals.data(), call.slots},
                threads);
    write_totals(given.op, totals, given.totals);
    return ffi::Error::Success();
  });
}

ffi::Error sums(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, bool anchored,
                ffi::Result<ffi::AnyBuffer> sums_out, ffi::Result<ffi::BufferR0<ffi::F32>> one) {
  *one->typed_data() = 1;
  return run({Op::kSums, table, {}, args, anchored, *sums_out, {}}, pool);
}

ffi::Error stats(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, bool anchored,
                 ffi::Result<ffi::AnyBuffer> stats_out) {
  return run({Op::kStats, table, {}, args, anchored, *stats_out, {}}, pool);
}

template <Op kOp>
ffi::Error write(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::AnyBuffer strengths, ffi::RemainingArgs args,
                 bool anchored, ffi::Result<ffi::AnyBuffer> sums_out, ffi::RemainingRets outputs) {
  return run({kOp, table, strengths, args, anchored, *sums_out, outputs}, pool);
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
