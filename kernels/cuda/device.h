// What differs between nvcc and the host emulator (tests/emulation/cuda_emul.h): headers and shared memory.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define SMEM(T, name, ...) __shared__ T name __VA_ARGS__
#else
#include "cuda_emul.h"
#endif
