// One chunk of a step, one block, one pass: each thread's share of the step and of what it finds.
#pragma once

#include "../step_formula.h"
#include "arguments.h"
#include "elements.h"

namespace fused_penalty::cuda {

// Blocks that fit an SM at least: what leaves registers for the loads, and none to spill. Read from the machine code by
// tests/emulation/step_artefact.py.
constexpr int step_blocks(Step step, bool anchored) { return has(step, kMaximum) && anchored ? 1 : 2; }

// For each of the four sums, which are independent: more would take registers and gain nothing.
constexpr int kStepAccumulators = 2;

// The chunk's part of the arrays of its leaf; null where the step has none. T is the type of x, anchor and gradient,
// S that of the state.
template <class T, class S>
struct StepSpan {
  T* x;
  const T *anchor, *gradient;
  S *first, *second, *maximum;
};

struct SquareRoot {
  template <class F>
  __device__ F operator()(F v) const {
    return sqrt(v);
  }
};

template <class T, class S, Step kStep, bool kAnchored>
struct StepWalk {
  using F = Compute<T>;
  // Elements that a thread takes at a time: 16 bytes of the state, and of x 16, or 8 beside a state of float32.
  static constexpr int kElements = kPack<S>;
  // Pieces of each array that a thread has under way: as many as the blocks have registers for. Double coefficients
  // take registers, too, and so double has one accumulator.
  static constexpr int kBytes =
      kElements * ((1 + kAnchored + has(kStep, kGradient)) * sizeof(T) +
                   (has(kStep, kFirst) + has(kStep, kSecond) + has(kStep, kMaximum)) * sizeof(S));
  static constexpr int kShare = kBytes * step_blocks(kStep, kAnchored);
  static constexpr int kLoads = kShare <= 48 ? 4 : kShare <= (sizeof(F) == 8 ? 96 : 128) ? 2 : 1;
  static constexpr int kAccumulators = sizeof(F) == 8 ? 1 : kStepAccumulators;
  // Groups before the sums go to double.
  static constexpr int kIterations = kRun * kAccumulators / (kLoads * kElements);
  static_assert(kIterations > 0 && kIterations * kLoads * kElements == kRun * kAccumulators);
  using Accumulators = F[kAccumulators];
  struct Sums {
    Accumulators abs = {}, square = {}, gradient_square = {}, step_square = {};
  };

  StepSpan<T, S> at;
  const StepCoefficients<F, F>& c;
  double abs = 0, square = 0, gradient_square = 0, step_square = 0;
  int zeros = 0, non_finite = 0;

  // One element, from what is read to what is written; its sums go to the accumulators number k.
  __device__ void element(StepElement<F>& e, Sums& sums, int k) {
    const F x = e.x, d = x - e.origin;
    const F after = stepped<kStep, kAnchored>(e, c, SquareRoot{});
    const F change = e.x - x;
    sums.abs[k] += magnitude(d);
    sums.square[k] = fma(scaled(d), d, sums.square[k]);  // explicit: every architecture rounds alike
    sums.step_square[k] = fma(scaled(change), change, sums.step_square[k]);
    zeros += after == 0;
    if constexpr (has(kStep, kGradient)) {
      sums.gradient_square[k] = fma(scaled(e.gradient), e.gradient, sums.gradient_square[k]);
      non_finite += !(e.gradient - e.gradient == 0);
    }
  }

  // kCount elements of every array, as they are loaded and stored.
  template <int kCount>
  struct Pieces {
    Piece<T, kCount> x, anchor, gradient;
    Piece<S, kCount> first, second, maximum;
  };

  template <int kCount>
  __device__ Pieces<kCount> load(int i) const {
    Pieces<kCount> pieces{};
    pieces.x = load_piece<kCount>(at.x + i);
    if constexpr (kAnchored) pieces.anchor = load_piece<kCount>(at.anchor + i);
    if constexpr (has(kStep, kGradient)) pieces.gradient = load_piece<kCount>(at.gradient + i);
    if constexpr (has(kStep, kFirst)) pieces.first = load_piece<kCount>(at.first + i);
    if constexpr (has(kStep, kSecond)) pieces.second = load_piece<kCount>(at.second + i);
    if constexpr (has(kStep, kMaximum)) pieces.maximum = load_piece<kCount>(at.maximum + i);
    return pieces;
  }

  // Steps these elements and stores what is written.
  template <int kCount>
  __device__ void step(int i, const Pieces<kCount>& pieces, Sums& sums) {
    T x[kCount], anchor[kCount], gradient[kCount];
    S first[kCount], second[kCount], maximum[kCount];
    unpack_piece(pieces.x, x);
    unpack_piece(pieces.anchor, anchor);
    unpack_piece(pieces.gradient, gradient);
    unpack_piece(pieces.first, first);
    unpack_piece(pieces.second, second);
    unpack_piece(pieces.maximum, maximum);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      StepElement<F> e{widen(x[k]),     widen(anchor[k]), widen(gradient[k]),
                       widen(first[k]), widen(second[k]), widen(maximum[k])};
      element(e, sums, k % kAccumulators);
      narrow(x[k], e.x);
      if constexpr (has(kStep, kFirst)) narrow(first[k], e.first);
      if constexpr (is_adam(kStep)) narrow(second[k], e.second);
      if constexpr (has(kStep, kMaximum)) narrow(maximum[k], e.maximum);
    }
    store_piece(at.x + i, x);
    if constexpr (has(kStep, kFirst)) store_piece(at.first + i, first);
    if constexpr (is_adam(kStep)) store_piece(at.second + i, second);
    if constexpr (has(kStep, kMaximum)) store_piece(at.maximum + i, maximum);
  }

  // Elements [first, last), kCount at a time, each at once to double: the edges, what is left of a group, and arrays
  // that no pieces can serve together.
  template <int kCount>
  __device__ void some(int first, int last) {
#pragma unroll 1
    for (int i = first + static_cast<int>(threadIdx.x) * kCount; i < last; i += kThreads * kCount) {
      Sums sums;
      step(i, load<kCount>(i), sums);
      add<(kCount < kAccumulators ? kCount : kAccumulators)>(sums);
    }
  }

  // `count` groups of kLoads pieces from `first`, all loads of a group before its arithmetic.
  __device__ void groups(int first, int count) {
    for (int done = 0; done < count; done += kIterations) {
      Sums sums;
      const int stop = min(count, done + kIterations);
#pragma unroll 1
      for (int g = done; g < stop; ++g) {
        Pieces<kElements> pieces[kLoads];
        const int base = first + (g * kLoads * kThreads + static_cast<int>(threadIdx.x)) * kElements;
#pragma unroll
        for (int j = 0; j < kLoads; ++j) pieces[j] = load<kElements>(base + j * kThreads * kElements);
#pragma unroll
        for (int j = 0; j < kLoads; ++j) step(base + j * kThreads * kElements, pieces[j], sums);
      }
      add<kAccumulators>(sums);
    }
  }

  // The accumulators that are in use.
  template <int kUsed>
  __device__ void add(const Sums& sums) {
#pragma unroll
    for (int k = 0; k < kUsed; ++k) {
      abs += static_cast<double>(sums.abs[k]);
      square += static_cast<double>(sums.square[k]);
      gradient_square += static_cast<double>(sums.gradient_square[k]);
      step_square += static_cast<double>(sums.step_square[k]);
    }
  }

  // Whether pieces of every array start at multiples of their size, `head` elements into the chunk.
  __device__ bool together(int head) const {
    const auto fits = [head](const auto* array) { return is_aligned<kElements>(array + head); };
    bool all = fits(at.x);
    if constexpr (kAnchored) all &= fits(at.anchor);
    if constexpr (has(kStep, kGradient)) all &= fits(at.gradient);
    if constexpr (has(kStep, kFirst)) all &= fits(at.first);
    if constexpr (has(kStep, kSecond)) all &= fits(at.second);
    if constexpr (has(kStep, kMaximum)) all &= fits(at.maximum);
    return all;
  }

  __device__ Found<kStepColumns> run(int n) {
    int head = min(n, to_alignment<kElements>(at.x)), after_groups = 0, after_pieces = 0;
    if (together(head)) {
      constexpr int kGroup = kLoads * kThreads * kElements;
      const int group_count = (n - head) / kGroup;
      after_groups = head + group_count * kGroup;
      after_pieces = after_groups + (n - after_groups) / kElements * kElements;
      groups(head, group_count);
    } else {
      head = 0;
    }
    some<kElements>(after_groups, after_pieces);
#pragma unroll 1  // both edges by the same code: there are many kernels to compile
    for (int edge = 0; edge < 2; ++edge) some<1>(edge ? after_pieces : 0, edge ? n : head);
    return {{abs, square * kUnscaled, gradient_square * kUnscaled, step_square * kUnscaled, static_cast<double>(zeros),
             static_cast<double>(non_finite)}};
  }
};

}  // namespace fused_penalty::cuda
