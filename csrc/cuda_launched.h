// A launch as Python sees it.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "../kernels/cuda/launch.h"

namespace fused_penalty {

// Launches without the GIL, since a launch waits where the stream's queue is full, maybe for a callback that needs it.
template <class Launch>
void launched(const Launch& launch) {
  cuda::Status status;
  {
    const pybind11::gil_scoped_release unlocked;
    status = launch();
  }
  if (status.where) throw std::runtime_error(std::string(status.where) + ": " + cudaGetErrorString(status.error));
}

}  // namespace fused_penalty
