// Chunk: the unit of work, a run of consecutive elements of one leaf. The Python planner (`_core/plan.py`)
// writes the table of chunks; the CPU and the GPU launchers read it. What is static stands here, so
// that a table is a constant of a plan; addresses are passed beside it.
#pragma once

#include <cstdint>

#include "dtypes.h"
#include "operations.h"

namespace fused_penalty {

struct Chunk {
  uint64_t span;
  uint32_t leaf;  // index into the pointer table
  uint32_t tag;

  constexpr int64_t offset() const { return static_cast<int64_t>(span >> 24); }  // in elements
  constexpr int64_t length() const { return static_cast<int64_t>(span & 0xffffff); }
  constexpr DType dtype() const { return static_cast<DType>(tag & kDTypeMask); }
  constexpr bool has_l1() const { return (tag >> kDTypeBits) & 1; }  // else: l1 is a static zero
  constexpr bool has_l2() const { return (tag >> (kDTypeBits + 1)) & 1; }
  constexpr uint32_t slot() const { return tag >> kSlotShift; }  // the row of totals and of coefficients

  static constexpr int kSlotShift = kDTypeBits + 2;
};
static_assert(sizeof(Chunk) == 16, "_core/plan.py writes 16 bytes per chunk");
constexpr int64_t kMaxSlots = int64_t{1} << (32 - Chunk::kSlotShift);

// Size and dtype of a leaf in one word.
constexpr uint64_t layout_of(int64_t size, DType dtype) {
  return static_cast<uint64_t>(size) << kDTypeBits | static_cast<uint64_t>(dtype);
}
constexpr int64_t size_of_layout(uint64_t layout) { return static_cast<int64_t>(layout >> kDTypeBits); }
constexpr DType dtype_of_layout(uint64_t layout) { return static_cast<DType>(layout & kDTypeMask); }

// The first chunk that lies outside its leaf or slot or has another dtype than its leaf; -1 if the table is sound.
inline int64_t first_misfit(const Chunk* chunks, int64_t count, const uint64_t* layouts, int64_t leaves,
                            int64_t slots) {
  for (int64_t i = 0; i < count; ++i) {
    const Chunk& c = chunks[i];
    const bool fits = c.leaf < leaves && c.slot() < slots &&
                      c.offset() + c.length() <= size_of_layout(layouts[c.leaf]) &&
                      dtype_of_layout(layouts[c.leaf]) == c.dtype();
    if (!fits) return i;
  }
  return -1;
}

// What is found in a chunk (partial) or a slot (final).
template <int kColumns>
struct Found {
  double column[kColumns];
};
using Sums = Found<kSumsColumns>;
using Stats = Found<kStatsColumns>;

// A result in 32 bits a number: columns that count hold uint32, as float32 ends its integers at 2^24.
constexpr bool is_count(int64_t column) { return column >= kZeros; }
constexpr uint32_t narrow_count(double count) {
  return count < 4294967295.0 ? static_cast<uint32_t>(count) : 0xffffffffu;
}

}  // namespace fused_penalty
