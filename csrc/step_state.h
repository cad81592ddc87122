// How wide the state of a step is: what the bindings of torch and of XLA ask alike.
#pragma once

#include <optional>

#include "../kernels/chunks.h"

namespace fused_penalty {

// Whether state of this layout is float32 beside 16 bits (true) or like its leaf (false); nothing where it is neither.
inline std::optional<bool> is_wide_state(uint64_t state, uint64_t leaf) {
  if (state == leaf) return false;
  const DType its = dtype_of_layout(leaf);
  const bool halved = its == DType::kFloat16 || its == DType::kBFloat16;
  if (halved && state == layout_of(size_of_layout(leaf), DType::kFloat32)) return true;
  return std::nullopt;
}

}  // namespace fused_penalty
