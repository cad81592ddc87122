#include "launch.h"

#include "launcher.h"

namespace fused_penalty::cuda {
namespace {

int address_count(const Launch& call) {
  return call.leaves * (1 + (call.anchored ? 1 : 0) + (writes(call.op) ? 1 : 0));
}

template <int kCapacity>
void run_sized(const Launch& call, const Queue& queue) {
  Arguments<kCapacity> arg{call.chunks,
                           call.coefficients,
                           nullptr,
                           nullptr,
                           call.totals,
                           call.one,
                           nullptr,
                           call.chunk_count,
                           call.slots,
                           call.leaves,
                           call.wide_coefficients,
                           call.wide_totals,
                           {}};
  run(
      kernel_of(call.op, call.anchored, kCapacity == kMany), arg, columns(call.op), call.scratch, address_count(call),
      [&call](int i) { return call.addresses[i]; }, queue);
}

}  // namespace

size_t scratch_bytes(Op op, int chunk_count, int addresses) {
  return scratch_bytes(columns(op), chunk_count, addresses);
}

void launch(const Launch& call, const Queue& queue) {
  if (address_count(call) <= kFew)
    run_sized<kFew>(call, queue);
  else
    run_sized<kMany>(call, queue);
}

void prepare(Op op, bool anchored, size_t addresses, const Queue& queue) {
  prepare_kernels(kernel_of(op, anchored, addresses > kFew), addresses, queue);
}

}  // namespace fused_penalty::cuda
