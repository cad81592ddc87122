// One kernel of a step as a library: the caller (emulated_step.py) has the arguments of the launch and their memory.
#include "kernels/cuda/step_kernel.h"

using namespace fused_penalty;
using namespace fused_penalty::cuda;

extern "C" void emulated_step(const Arguments<480>* arg, int grid) {
  auto kernel = run_step<Step::kAmsgrad, true, 480>;  // the one with most arrays
  LAUNCH(kernel, grid, kThreads, 0, 0, *arg);
}
