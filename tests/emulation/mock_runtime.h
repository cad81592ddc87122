// The part of the CUDA runtime that the launcher and the bindings use, on a machine without a GPU: included before
// kernels/cuda/launch.cu (g++ -include), which is otherwise compiled as it is. Device memory is host memory. A launch
// runs the emulated kernel at once, or is recorded while its stream is captured. A function can be made to fail.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

#include "cuda_emul.h"

namespace mock {

// Counts a call of this function of the runtime; its error, if it is the one that shall fail now.
cudaError_t entered(const char* function);
void enqueue(cudaStream_t, std::function<void()>);
int blocks_per_processor();

template <class Arg>
cudaError_t launch(const char* name, void (*kernel)(Arg), int grid, int block, cudaStream_t stream, const Arg& arg) {
  if (auto e = entered("cudaLaunchKernel"); e != cudaSuccess) return e;
  enqueue(stream, [=] { emu::Launcher{name, dim3(grid), dim3(block), 0}.run([&] { kernel(arg); }); });
  return cudaSuccess;
}

}  // namespace mock

#undef LAUNCH
#define LAUNCH(kernel, grid, block, bytes, stream, arg) mock::launch(#kernel, kernel, grid, block, stream, arg)

template <class Arg>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(Arg), int, size_t) {
  if (auto e = mock::entered("cudaOccupancyMaxActiveBlocksPerMultiprocessor"); e != cudaSuccess) return e;
  *blocks = mock::blocks_per_processor();
  return cudaSuccess;
}
