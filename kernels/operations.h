// The table of operations: the twin of _core/operations.py, and a test compares the two. A new operation is a row here
// and there, and its formula in each elastic_net; `visit` is the one switch over operations.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fused_penalty {

// What the arrays of a leaf are to an operation, as bits of a set. The anchor is not among them: every operation reads
// one where it is given.
enum Role : uint32_t {
  kNothing = 0,
  kX = 1,
  kGrad = 2,  // a gradient that exists already
  kOut = 4,   // a fresh array like the leaf
};

// What is found in a chunk or a slot, one double per column. The first two are found by every operation.
enum Column { kAbs, kSquare, kLargest, kZeros, kNonFinite };
constexpr int kSumsColumns = kSquare + 1, kStatsColumns = kNonFinite + 1;

// Every operation sums |d| and d * d, d = x - anchor, and writes what its formula says (`written` in elastic_net.h).
//      name         reads       writes    columns
#define FUSED_PENALTY_OPERATIONS(ROW)               \
  ROW(Sums, kX, kNothing, kSumsColumns)             \
  ROW(Gradient, kX, kOut, kSumsColumns)             \
  ROW(AddGradient, kX | kGrad, kGrad, kSumsColumns) \
  ROW(Prox, kX, kX, kSumsColumns)                   \
  ROW(Regularize, kX, kX, kSumsColumns)             \
  ROW(Stats, kX, kNothing, kStatsColumns)

enum class Op : uint32_t {
#define FUSED_PENALTY_ROW(name, reads, writes, columns) k##name,
  FUSED_PENALTY_OPERATIONS(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
};

struct Operation {
  const char* name;
  uint32_t reads, writes;  // sets of roles
  int columns;
};

inline constexpr Operation kOperations[] = {
#define FUSED_PENALTY_ROW(name, reads, writes, columns) {#name, reads, writes, columns},
    FUSED_PENALTY_OPERATIONS(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
};
constexpr int64_t kOperationCount = sizeof kOperations / sizeof kOperations[0];

constexpr const Operation& row_of(Op op) { return kOperations[static_cast<uint32_t>(op)]; }
constexpr int columns(Op op) { return row_of(op).columns; }
constexpr bool writes(Op op) { return row_of(op).writes != kNothing; }
// Whether what stands in the array that is written matters, other than as x.
constexpr bool reads_old(Op op) { return row_of(op).reads & row_of(op).writes & ~kX; }
constexpr bool finds_stats(Op op) { return columns(op) > kSumsColumns; }
// The operation on a leaf that it must not write.
constexpr Op reading(Op op) { return writes(op) ? Op::kSums : op; }

// The operation with this code; throws std::invalid_argument where there is none.
inline Op op_of(int64_t code) {
  if (code < 0 || code >= kOperationCount)
    throw std::invalid_argument("no operation has the code " + std::to_string(code));
  return static_cast<Op>(code);
}

// f.operator()<kOp>() for the operation that `op` is at run time: visit(op, [&]<Op kOp>() { ... }).
template <class F>
auto visit(Op op, F f) {
  switch (op) {
#define FUSED_PENALTY_ROW(name, reads, writes, columns) \
  case Op::k##name:                                     \
    return f.template operator()<Op::k##name>();
    FUSED_PENALTY_OPERATIONS(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
  }
  throw std::invalid_argument("no operation has the code " + std::to_string(static_cast<uint32_t>(op)));
}

}  // namespace fused_penalty
