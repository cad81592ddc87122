// The emulated kernels of the operations, and the one that writes addresses.
#include "../../../kernels/cuda/kernel.h"
#include "../../../kernels/cuda/names.h"
#include "emulated.h"

namespace mock {
namespace {

using namespace fused_penalty;
using namespace fused_penalty::cuda;

template <Op kOp, bool kAnchored>
void add(Kernels& kernels) {
  kernels[kernel_of(kOp, kAnchored, false)] = emulated(row_of(kOp).name, run_operation<kOp, kAnchored, kFew>);
  kernels[kernel_of(kOp, kAnchored, true)] = emulated(row_of(kOp).name, run_operation<kOp, kAnchored, kMany>);
}

}  // namespace

void add_operations(Kernels& kernels) {
  for (int64_t op = 0; op < kOperationCount; ++op)
    visit(op_of(op), [&]<Op kOp>() { add<kOp, false>(kernels), add<kOp, true>(kernels); });
  kernels[kAddressesKernel] = emulated(kAddressesKernel, write_addresses<kMany>);
}

}  // namespace mock
