// Kernels, loaded into the driver when they are first needed.
#pragma once

#include <string>

#include "driver.h"

namespace fused_penalty::cuda {

struct Loaded {
  Kernel kernel;
  int blocks;  // that are resident on the device at once, so that each takes its share of chunks in one wave
};

// The kernel of this name on the current device; `device` is that device's number. What is not known yet is loaded,
// which a stream that is being captured (`stream`, where a launch comes next) forbids: Error then. Safe in threads.
Loaded load(const std::string& kernel, int device, Stream stream);

// Whether the kernels run on this device: why not, or empty. Throws as driver().
std::string why_not_on(int device);

}  // namespace fused_penalty::cuda
