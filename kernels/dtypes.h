// The table of dtypes: the twin of DTYPES in _core/dtypes.py, and a test compares the two. A new dtype is a row here
// and there, its load (and store, where it is written) in each elements file, and a case of each switch over dtypes,
// which the compiler asks for.
#pragma once

#include <cstdint>

namespace fused_penalty {

//      name, bytes, whether an operation may write it
#define FUSED_PENALTY_DTYPES(ROW) \
  ROW(Float16, 2, true)           \
  ROW(BFloat16, 2, true)          \
  ROW(Float32, 4, true)           \
  ROW(Float64, 8, true)           \
  ROW(Float8E4M3, 1, false)       \
  ROW(Float8E5M2, 1, false)

enum class DType : uint32_t {
#define FUSED_PENALTY_ROW(name, bytes, writable) k##name,
  FUSED_PENALTY_DTYPES(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
};

struct ElementType {
  const char* name;
  int bytes;
  bool writable;
};

inline constexpr ElementType kDTypes[] = {
#define FUSED_PENALTY_ROW(name, bytes, writable) {#name, bytes, writable},
    FUSED_PENALTY_DTYPES(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
};
constexpr int kDTypeBits = 4;  // of a chunk's tag and of a layout
constexpr uint32_t kDTypeMask = (1u << kDTypeBits) - 1;
constexpr uint32_t kDTypeCount = sizeof kDTypes / sizeof kDTypes[0];
static_assert(kDTypeCount <= 1u << kDTypeBits);

constexpr bool is_writable(DType dtype) { return kDTypes[static_cast<uint32_t>(dtype)].writable; }

}  // namespace fused_penalty
