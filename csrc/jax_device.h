// What the XLA FFI handlers of CUDA share: where they launch, and scratch memory.
#pragma once

#include <string>

#include "../kernels/cuda/launch.h"
#include "jax_operands.h"

namespace fused_penalty {

using DeviceStream = ffi::PlatformStream<cuda::Stream>;

// Throws std::invalid_argument for scratch that is too small or lies askew.
inline void check_scratch(const ffi::AnyBuffer& scratch, size_t needed) {
  constexpr uintptr_t kAlignment = 16;
  if (scratch.size_bytes() < needed)
    throw std::invalid_argument("scratch must have " + std::to_string(needed) + " bytes, not " +
                                std::to_string(scratch.size_bytes()));
  if (reinterpret_cast<uintptr_t>(scratch.untyped_data()) % kAlignment)
    throw std::invalid_argument("scratch must lie at a multiple of 16 bytes");
}

// The binding of a handler of either stage; `code`: which attribute says what it does.
template <ffi::ExecutionStage kStage>
auto device_binding(const char* code) {
  return ffi::Ffi::Bind<kStage>()
      .template Ctx<DeviceStream>()
      .template Ctx<ffi::DeviceOrdinal>()
      .template Arg<ffi::Buffer<ffi::U32>>()
      .RemainingArgs()
      .template Attr<int32_t>(code)
      .template Attr<bool>("anchored")
      .RemainingRets();
}

}  // namespace fused_penalty
