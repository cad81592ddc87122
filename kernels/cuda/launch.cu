#include "kernel.h"
#include "launch.h"
#include "launcher.h"

namespace fused_penalty::cuda {
namespace {

int address_count(const Launch& call) {
  return call.leaves * (1 + (call.anchored ? 1 : 0) + (writes(call.op) ? 1 : 0));
}

template <Op kOp, bool kAnchored, int kCapacity>
Status run_op(const Launch& call, cudaStream_t stream) {
  static Residents residents;
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
  return run(
      penalty_kernel<kOp, kAnchored, kCapacity>, residents, arg, columns(kOp), call.scratch, address_count(call),
      [&call](int i) { return call.addresses[i]; }, stream);
}

template <Op kOp, bool kAnchored>
Status run_sized(const Launch& call, cudaStream_t stream) {
  return address_count(call) <= kFew ? run_op<kOp, kAnchored, kFew>(call, stream)
                                     : run_op<kOp, kAnchored, kMany>(call, stream);
}

}  // namespace

size_t scratch_bytes(Op op, int chunk_count, int addresses) {
  return scratch_bytes(columns(op), chunk_count, addresses);
}

Status launch(const Launch& call, cudaStream_t stream) {
  return reported(visit(call.op, [&]<Op kOp>() {
    return call.anchored ? run_sized<kOp, true>(call, stream) : run_sized<kOp, false>(call, stream);
  }));
}

}  // namespace fused_penalty::cuda
