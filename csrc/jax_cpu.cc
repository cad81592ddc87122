// The XLA FFI handler for CPUs: check, convert, call the launcher.
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

std::vector<double> read_doubles(const void* from, size_t n, bool wide) {
  if (wide) {
    const auto* p = static_cast<const double*>(from);
    return {p, p + n};
  }
  const auto* p = static_cast<const float*>(from);
  return {p, p + n};
}

void write_totals(const Call& call, const std::vector<double>& totals) {
  if (call.wide_totals) {
    std::copy(totals.begin(), totals.end(), static_cast<double*>(call.totals));
    return;
  }
  auto* to = static_cast<char*>(call.totals);
  const size_t width = columns(call.op);
  for (size_t i = 0; i < totals.size(); ++i, to += 4) {
    const uint32_t count = narrow_count(totals[i]);
    const auto real = static_cast<float>(totals[i]);
    std::memcpy(to, is_count(i % width) ? static_cast<const void*>(&count) : &real, 4);
  }
}

ffi::Error run(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, int32_t op, bool anchored,
               ffi::RemainingRets results) {
  return checked({table, args, op, anchored, results}, false, [&](const Call& call) {
    const auto leaves = static_cast<int64_t>(call.layouts.size());
    if (const int64_t i = first_misfit(call.chunks, call.chunk_count, call.layouts.data(), leaves, call.slots); i >= 0)
      return ffi::Error::InvalidArgument("fused_penalty: chunk " + std::to_string(i) +
                                         " of the plan does not fit leaf " + std::to_string(call.chunks[i].leaf));
    const size_t slots = call.slots;
    const auto coefficients = read_doubles(call.coefficients, writes(call.op) ? 2 * slots : 0, call.wide_coefficients);
    std::vector<double> totals(slots * columns(call.op));
    XlaThreads threads(pool);
    cpu::launch({call.op, call.chunks, call.chunk_count, call.x.data(), anchored ? call.anchor.data() : nullptr,
                 writes(call.op) ? call.out.data() : nullptr, writes(call.op) ? coefficients.data() : nullptr,
                 totals.data(), call.slots},
                threads);
    write_totals(call, totals);
    if (call.one) *call.one = 1;
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyCpu, fused_penalty::run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<int32_t>("op")
                                  .Attr<bool>("anchored")
                                  .RemainingRets());
