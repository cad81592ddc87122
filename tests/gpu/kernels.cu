// The instantiations that the launcher uses, for the tests that read PTX and SASS.
#include "kernels/cuda/kernel.h"

namespace fused_penalty::cuda {

template __global__ void penalty_kernel<Op::kSums, false, 480>(const __grid_constant__ Arguments<480>);
template __global__ void penalty_kernel<Op::kSums, true, 480>(const __grid_constant__ Arguments<480>);
template __global__ void penalty_kernel<Op::kGradient, false, 480>(const __grid_constant__ Arguments<480>);
template __global__ void penalty_kernel<Op::kGradient, true, 480>(const __grid_constant__ Arguments<480>);

}  // namespace fused_penalty::cuda
