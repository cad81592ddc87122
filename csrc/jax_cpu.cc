// The XLA FFI handler for CPUs: check, convert, call the launcher.
#include "jax_cpu.h"

#include <vector>

#include "../kernels/cpu/launch.h"
#include "jax_arrays.h"
#include "jax_host.h"

namespace fused_penalty {
namespace {

ffi::Error run(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, int32_t op, bool anchored,
               ffi::RemainingRets results) {
  const auto launched = [&](const Call& call) {
    check_chunks(call.chunks, call.chunk_count, call.layouts, call.slots);
    const size_t slots = call.slots, width = columns(call.op);
    const auto coefficients = read_doubles(call.coefficients, writes(call.op) ? 2 * slots : 0, call.wide_coefficients);
    std::vector<double> totals(slots * width);
    XlaThreads threads(pool);
    cpu::launch({call.op, call.chunks, call.chunk_count, call.x.data(), anchored ? call.anchor.data() : nullptr,
                 writes(call.op) ? call.out.data() : nullptr, writes(call.op) ? coefficients.data() : nullptr,
                 totals.data(), call.slots},
                threads);
    write_totals(totals, width, call.totals, call.wide_totals, is_count);
    if (call.one) *call.one = 1;
    return ffi::Error::Success();
  };
  return checked([&] { return check(Operands{table, args, op, anchored, results}, false); }, launched);
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
