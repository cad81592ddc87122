// What the kernels are called, in the images and in profiles; images/make.py has the same names.
#pragma once

#include <string>

#include "../operations.h"
#include "../steps.h"

namespace fused_penalty::cuda {

inline std::string kernel_of(Op op, bool anchored, bool many) {
  return std::string("fused_penalty_") + row_of(op).name + (anchored ? "_anchored" : "") + (many ? "_many" : "_few");
}

inline std::string kernel_of(Step step, bool anchored) {
  return std::string("fused_penalty_step_") + kSteps[static_cast<uint32_t>(step)].name + (anchored ? "_anchored" : "");
}

inline constexpr const char* kAddressesKernel = "fused_penalty_addresses";

}  // namespace fused_penalty::cuda
