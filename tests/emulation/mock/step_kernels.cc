// The emulated kernels of the steps.
#include "../../../kernels/cuda/names.h"
#include "../../../kernels/cuda/step_kernel.h"
#include "emulated.h"

namespace mock {
namespace {

using namespace fused_penalty;
using namespace fused_penalty::cuda;

template <Step kStep, bool kAnchored>
void add(Kernels& kernels) {
  const std::string name = kernel_of(kStep, kAnchored);
  kernels[name] = emulated("a step", run_step<kStep, kAnchored, kMany>);
}

}  // namespace

void add_steps(Kernels& kernels) {
  for (int64_t step = 0; step < kStepCount; ++step)
    visit(step_of(step), [&]<Step kStep>() { add<kStep, false>(kernels), add<kStep, true>(kernels); });
}

}  // namespace mock
