// The kernel of a step: one launch walks all chunks, as that of an operation does. A leaf without the array that
// decides (steps.h) is only read.
#pragma once

#include "addresses.h"
#include "partials.h"
#include "step_arguments.h"
#include "step_walk.h"
#include "walk.h"

namespace fused_penalty::cuda {

struct StepColumns {
  static constexpr int kCount = kStepColumns;
  static constexpr double merged(int, double a, double b) { return a + b; }
  static constexpr bool is_count(int column) { return is_step_count(column); }
};

// The arrays of a chunk's leaf, from where the chunk starts.
template <Step kStep, bool kAnchored, class A>
class StepLeaf {
 public:
  __device__ StepLeaf(const A& arg, const Chunk& chunk)
      : arg_(arg), leaf_(static_cast<int>(chunk.leaf)), offset_(chunk.offset()) {}
  __device__ bool is_wide() const { return word(0) & kWideState; }
  __device__ bool is_written() const { return word(step_arrays(kStep, kAnchored, decides(kStep))) != 0; }
  template <class T>
  __device__ T* x() const {
    return reinterpret_cast<T*>(word(0) & ~kWideState) + offset_;
  }
  template <class T>
  __device__ const T* anchor() const {
    return kAnchored ? reinterpret_cast<const T*>(word(1)) + offset_ : nullptr;
  }
  template <class T, StepRole kRole>
  __device__ T* array() const {
    if constexpr (has(kStep, kRole))
      return reinterpret_cast<T*>(word(step_arrays(kStep, kAnchored, kRole))) + offset_;
    else
      return nullptr;
  }

 private:
  const A& arg_;
  int leaf_;
  int64_t offset_;

  __device__ uintptr_t word(int array) const {
    return reinterpret_cast<uintptr_t>(address_of(arg_, array * arg_.leaves + leaf_));
  }
};

// A coefficient of a slot.
template <class A>
__device__ double coefficient(const A& arg, const Chunk& chunk, int which) {
  const int i = kStepCoefficients * static_cast<int>(chunk.slot()) + which;
  return arg.wide_coefficients ? static_cast<const double*>(arg.coefficients)[i]
                               : static_cast<double>(static_cast<const float*>(arg.coefficients)[i]);
}

// The step, with state of type S. One thread makes the coefficients for the block: their float64 arithmetic is dear on
// a consumer card.
template <class T, class S, Step kStep, bool kAnchored, class A>
__device__ Found<kStepColumns> step_chunk(const Chunk& chunk, const A& arg) {
  const StepLeaf<kStep, kAnchored, A> leaf(arg, chunk);
  using Coefficients = StepCoefficients<Compute<T>, Compute<T>>;
  SMEM(Coefficients, shared, [1]);
  if (threadIdx.x == 0) {
    double row[kStepCoefficients];
#pragma unroll
    for (int i = 0; i < kStepCoefficients; ++i) row[i] = coefficient(arg, chunk, i);
    shared[0] = Coefficients::from(row);
  }
  __syncthreads();
  StepWalk<T, S, kStep, kAnchored> walk{
      {leaf.template x<T>(), leaf.template anchor<T>(), leaf.template array<const T, kGradient>(),
       leaf.template array<S, kFirst>(), leaf.template array<S, kSecond>(), leaf.template array<S, kMaximum>()},
      shared[0]};
  return walk.run(static_cast<int>(chunk.length()));
}

template <class T, Step kStep, bool kAnchored, class A>
__device__ Found<kStepColumns> step_or_read(const Chunk& chunk, const A& arg) {
  const StepLeaf<kStep, kAnchored, A> leaf(arg, chunk);
  if (!leaf.is_written() || coefficient(arg, chunk, static_cast<int>(StepCoefficient::skip)) != 0) {
    Walk<T, Op::kSums, kAnchored> walk{{leaf.template x<T>(), leaf.template anchor<T>(), nullptr}, {}, {}, {}, {}};
    const auto sums = walk.run(static_cast<int>(chunk.length()));
    return {{sums.column[kAbs], sums.column[kSquare]}};
  }
  if constexpr (sizeof(T) == 2)
    if (leaf.is_wide()) return step_chunk<T, float, kStep, kAnchored>(chunk, arg);
  return step_chunk<T, T, kStep, kAnchored>(chunk, arg);
}

// The switch over the dtypes that a step may write.
template <Step kStep, bool kAnchored, class A>
__device__ Found<kStepColumns> step_any(const Chunk& chunk, const A& arg) {
  switch (chunk.dtype()) {
    case DType::kFloat16:
      return step_or_read<__half, kStep, kAnchored>(chunk, arg);
    case DType::kBFloat16:
      return step_or_read<__nv_bfloat16, kStep, kAnchored>(chunk, arg);
    case DType::kFloat32:
      return step_or_read<float, kStep, kAnchored>(chunk, arg);
    case DType::kFloat64:
      return step_or_read<double, kStep, kAnchored>(chunk, arg);
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
      break;
  }
  __builtin_unreachable();  // the bindings admit dtypes that can be written
}

// The kernel; images/step_entry.cu makes entry points of it.
template <Step kStep, bool kAnchored, int kCapacity>
__device__ __forceinline__ void run_step(const Arguments<kCapacity>& arg) {
  over_chunks<StepColumns>(arg, [&arg](const Chunk& chunk) { return step_any<kStep, kAnchored>(chunk, arg); });
}

}  // namespace fused_penalty::cuda
