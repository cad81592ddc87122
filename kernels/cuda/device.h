// What differs between nvcc and the host emulator (tests/emulation/cuda_emul.h): shared memory and the launch, which
// gives its own status: cudaGetLastError would also give the error of an earlier call, ours or not.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define SMEM(T, name, ...) __shared__ T name __VA_ARGS__
#define LAUNCH(kernel, grid, block, bytes, stream, arg) \
  fused_penalty::cuda::launch_kernel(kernel, grid, block, bytes, stream, arg)

namespace fused_penalty::cuda {
template <class Arg>
cudaError_t launch_kernel(void (*kernel)(Arg), int grid, int block, size_t bytes, cudaStream_t stream, Arg& arg) {
  void* args[] = {&arg};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(grid), dim3(block), args, bytes, stream);
}
}  // namespace fused_penalty::cuda
#else
#include "cuda_emul.h"
#endif
