// The kernel of one operation as an image: make.py gives NAME, OP, ANCHORED and CAPACITY.
#include "../kernel.h"

namespace fused_penalty::cuda {

extern "C" __global__ void __launch_bounds__(kThreads, blocks_of(OP, ANCHORED))
    NAME(const __grid_constant__ Arguments<CAPACITY> arg) {
  run_operation<OP, ANCHORED>(arg);
}

}  // namespace fused_penalty::cuda
