// What the XLA FFI handlers of CUDA share: scratch memory, and what a launch reports.
#pragma once

#include <string>

#include "../kernels/cuda/launch.h"
#include "jax_operands.h"

namespace fused_penalty {

// Throws std::invalid_argument for scratch that is too small or lies askew.
inline void check_scratch(const ffi::AnyBuffer& scratch, size_t needed) {
  constexpr uintptr_t kAlignment = 16;
  if (scratch.size_bytes() < needed)
    throw std::invalid_argument("scratch must have " + std::to_string(needed) + " bytes, not " +
                                std::to_string(scratch.size_bytes()));
  if (reinterpret_cast<uintptr_t>(scratch.untyped_data()) % kAlignment)
    throw std::invalid_argument("scratch must lie at a multiple of 16 bytes");
}

inline ffi::Error to_ffi(const cuda::Status& status) {
  if (!status.where) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("fused_penalty: ") + status.where + ": " + cudaGetErrorString(status.error));
}

}  // namespace fused_penalty
