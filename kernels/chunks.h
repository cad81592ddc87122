// Chunk: the unit of work, a run of consecutive elements of one leaf. The Python planner (`_core/plan.py`)
// writes the table of chunks; the CPU and the GPU launchers read it. What is static stands here, so
// that a table is a constant of a plan; addresses are passed beside it.
#pragma once

#include <cstdint>

namespace fused_penalty {

enum class DType : uint32_t { kFloat16, kBFloat16, kFloat32, kFloat64 };

// What is done with each element beside summing |d| and d*d (d = x - anchor). A launcher takes it as a
// compile-time tag; a new operation is a line here, its formula in elastic_net.h (`written`) and a line in
// `_core.operations.Op`.
enum class Op : uint32_t {
  kSums,         // nothing
  kGradient,     // out = a * sign(d) + b * d
  kAddGradient,  // out += a * sign(d) + b * d
  kProx,         // out = anchor + b * (d - clip(d, a)); out may be x
  kRegularize,   // out = x - clip(d, a) - b * d; out may be x
  kStats,        // the largest |d| is found, zeros and non-finite numbers are counted
};
constexpr bool is_op(int64_t code) { return code >= 0 && code <= static_cast<int64_t>(Op::kStats); }
constexpr bool writes(Op op) { return op != Op::kSums && op != Op::kStats; }

struct Chunk {
  uint64_t span;
  uint32_t leaf;  // index into the pointer table
  uint32_t tag;

  constexpr int64_t offset() const { return static_cast<int64_t>(span >> 24); }  // in elements
  constexpr int64_t length() const { return static_cast<int64_t>(span & 0xffffff); }
  constexpr DType dtype() const { return static_cast<DType>(tag & 3); }
  constexpr bool has_l1() const { return (tag >> 2) & 1; }  // else: l1 is a static zero
  constexpr bool has_l2() const { return (tag >> 3) & 1; }
  constexpr uint32_t slot() const { return tag >> 4; }  // the row of sums and of strengths
};
static_assert(sizeof(Chunk) == 16, "_core/plan.py writes 16 bytes a chunk");
constexpr int64_t kMaxSlots = 1 << 28;  // bits of the tag that name one

// Size and dtype of a leaf in one word.
constexpr uint64_t layout_of(int64_t size, DType dtype) {
  return static_cast<uint64_t>(size) << 2 | static_cast<uint64_t>(dtype);
}
constexpr int64_t size_of_layout(uint64_t layout) { return static_cast<int64_t>(layout >> 2); }
constexpr DType dtype_of_layout(uint64_t layout) { return static_cast<DType>(layout & 3); }

// The first chunk that lies outside its leaf or slot or has another dtype; -1 if the table is sound.
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

// What is found in a chunk (partial) or a slot (final), a double a column.
enum Column { kAbs, kSquare, kLargest, kZeros, kNonFinite };
constexpr int columns(Op op) { return op == Op::kStats ? 5 : 2; }

template <int kColumns>
struct Found {
  double column[kColumns];
};
using Sums = Found<columns(Op::kSums)>;
using Stats = Found<columns(Op::kStats)>;

// A result in 32 bits a number: columns that count hold uint32, as float32 ends its integers at 2^24.
constexpr bool is_count(int64_t column) { return column >= kZeros; }
constexpr uint32_t narrow_count(double count) {
  return count < 4294967295.0 ? static_cast<uint32_t>(count) : 0xffffffffu;
}

}  // namespace fused_penalty
