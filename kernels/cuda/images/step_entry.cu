// The kernel of one step as an image: make.py gives NAME, STEP, ANCHORED and CAPACITY.
#include "../step_kernel.h"

namespace fused_penalty::cuda {

extern "C" __global__ void __launch_bounds__(kThreads, step_blocks(STEP, ANCHORED))
    NAME(const __grid_constant__ Arguments<CAPACITY> arg) {
  run_step<STEP, ANCHORED>(arg);
}

}  // namespace fused_penalty::cuda
