// The kernel that writes addresses as an image: make.py gives NAME and CAPACITY.
#include "../addresses.h"

namespace fused_penalty::cuda {

extern "C" __global__ void __launch_bounds__(kThreads) NAME(const __grid_constant__ SomeAddresses<CAPACITY> some) {
  write_addresses(some);
}

}  // namespace fused_penalty::cuda
