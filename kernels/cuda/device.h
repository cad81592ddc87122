// What differs between nvcc and the host emulator (tests/emulation/cuda_emul.h): shared memory and the launch.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define SMEM(T, name, ...) __shared__ T name __VA_ARGS__
#define LAUNCH(kernel, grid, block, bytes, stream, ...) kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#else
#include "cuda_emul.h"
#endif
