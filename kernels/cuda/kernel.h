// The kernel of an operation: one launch walks all chunks.
#pragma once

#include "addresses.h"
#include "partials.h"
#include "walk.h"

namespace fused_penalty::cuda {

// Blocks that fit an SM at least: leaves the compiler the registers to have all loads of a group under way (left to
// itself, nvcc 13 keeps two of four) and none to spill; three arrays to read need twice as many.
// tests/emulation/artefact.py reads the outcome from the machine code.
constexpr int blocks_of(Op op, bool anchored) { return reads_old(op) && anchored ? 1 : writes(op) ? 2 : 3; }

template <Op kOp>
struct OpColumns {
  static constexpr int kCount = columns(kOp);
  static constexpr double merged(int column, double a, double b) { return fused_penalty::merged(column, a, b); }
  static constexpr bool is_count(int column) { return fused_penalty::is_count(column); }
};

// a and b for the slot of a chunk.
template <class F, class A>
__device__ void read_coefficients(const A& arg, const Chunk& chunk, F& a, F& b) {
  const int row = 2 * static_cast<int>(chunk.slot());
  if (arg.wide_coefficients) {
    const auto* s = static_cast<const double*>(arg.coefficients) + row;
    a = static_cast<F>(s[0]), b = static_cast<F>(s[1]);
  } else {
    const auto* s = static_cast<const float*>(arg.coefficients) + row;
    a = static_cast<F>(s[0]), b = static_cast<F>(s[1]);
  }
}

// Addresses of `Arguments`: x of every leaf, then the anchors, then the outputs, as far as the operation has them; a
// null output stands for a leaf that is only read.
template <class T, Op kOp, bool kAnchored, class A>
__device__ Found<columns(kOp)> walk(const Chunk& chunk, const A& arg) {
  const auto leaf = static_cast<int>(chunk.leaf), length = static_cast<int>(chunk.length());
  const auto* x = static_cast<const T*>(address_of(arg, leaf)) + chunk.offset();
  const T* anchor = nullptr;
  if constexpr (kAnchored) anchor = static_cast<const T*>(address_of(arg, arg.leaves + leaf)) + chunk.offset();
  if constexpr (writes(kOp)) {
    if (auto* out = static_cast<T*>(const_cast<void*>(address_of(arg, (kAnchored ? 2 : 1) * arg.leaves + leaf)))) {
      Walk<T, kOp, kAnchored> walk{{x, anchor, out + chunk.offset()}, {}, {}, chunk.has_l1(), chunk.has_l2()};
      read_coefficients(arg, chunk, walk.a, walk.b);
      return walk.run(length);
    }
  }
  Walk<T, reading(kOp), kAnchored> walk{{x, anchor, nullptr}, {}, {}, false, false};
  return walk.run(length);
}

// The one switch over dtypes in the CUDA code; a block takes one branch.
template <Op kOp, bool kAnchored, class A>
__device__ Found<columns(kOp)> walk_any(const Chunk& chunk, const A& arg) {
  switch (chunk.dtype()) {
    case DType::kFloat16:
      return walk<__half, kOp, kAnchored>(chunk, arg);
    case DType::kBFloat16:
      return walk<__nv_bfloat16, kOp, kAnchored>(chunk, arg);
    case DType::kFloat32:
      return walk<float, kOp, kAnchored>(chunk, arg);
    case DType::kFloat64:
      return walk<double, kOp, kAnchored>(chunk, arg);
    case DType::kFloat8E4M3:
      return walk<Float8E4M3, reading(kOp), kAnchored>(chunk, arg);
    case DType::kFloat8E5M2:
      return walk<Float8E5M2, reading(kOp), kAnchored>(chunk, arg);
  }
  __builtin_unreachable();  // the planner writes no other code
}

// The kernel; images/entry.cu makes entry points of it.
template <Op kOp, bool kAnchored, int kCapacity>
__device__ __forceinline__ void run_operation(const Arguments<kCapacity>& arg) {
  over_chunks<OpColumns<kOp>>(arg, [&arg](const Chunk& chunk) { return walk_any<kOp, kAnchored>(chunk, arg); });
}

}  // namespace fused_penalty::cuda
