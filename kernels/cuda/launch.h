// The CUDA launcher: raw pointers, a plan's table of chunks on the device and a stream in; one launch. Framework-free.
// Nothing here allocates, waits or asks the device for anything, so a stream that is being captured can take it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "../chunks.h"

namespace fused_penalty::cuda {

struct Launch {
  Op op;
  bool anchored;
  const Chunk* chunks;  // on the device, sorted by slot
  int chunk_count;
  const void* const* addresses;  // on the host: x of each leaf, then the anchors, then the outputs
  int leaves;
  const void* coefficients;  // on the device: (slots, 2), a and b of elastic_net.h; null if nothing is written
  bool wide_coefficients;    // float64, else float32
  void* scratch;             // on the device: scratch_bytes
  void* totals;              // on the device: (slots, columns(op)), written
  bool wide_totals;          // float64, else float32 and uint32 counts
  int slots;
  float* one;  // on the device: written 1; may be null
};

size_t scratch_bytes(Op, int chunk_count, int addresses);

// What went wrong, and at which call; `where` is null after success.
struct Status {
  cudaError_t error = cudaSuccess;
  const char* where = nullptr;
};

Status launch(const Launch&, cudaStream_t);

}  // namespace fused_penalty::cuda
