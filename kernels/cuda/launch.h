// The CUDA launcher: raw pointers, a plan's table of chunks on the device and a stream in; one launch. Framework-free,
// and compiled by the host's compiler alone. Once a kernel is loaded nothing here allocates, waits or asks the device
// for anything, so a stream that is being captured can take it. What fails throws cuda::Error or cuda::OutOfMemory with
// the driver's words; nothing is left behind that a later launch would meet.
#pragma once

#include <cstddef>

#include "../chunks.h"
#include "driver.h"

namespace fused_penalty::cuda {

// Where a launch goes: a device by its number, the caller's current one, and one of its streams.
struct Queue {
  int device;
  Stream stream;
};

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

void launch(const Launch&, const Queue&);

// Loads what a launch with so many addresses needs, so that the launch itself can be captured.
void prepare(Op, bool anchored, size_t addresses, const Queue&);

}  // namespace fused_penalty::cuda
