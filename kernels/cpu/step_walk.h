// One chunk of a step, one pass: every array is read once and written once, and the sums come from the same registers.
// Included by one translation unit per instruction set; as in walk.h, all give the same bits.
#pragma once

#include <array>
#include <type_traits>

#include "../step_formula.h"
#include "elements.h"
#include "step_isa.h"

namespace fused_penalty::cpu {
namespace {

// Where a walk stands. T is the type of x, anchor and gradient, S that of the state.
template <class T, class S>
struct StepCursor {
  T* x;
  const T *anchor, *gradient;
  S *first, *second, *maximum;
};

template <class T, class S, Step kStep, bool kAnchored>
struct StepWalk {
  using V = Register<T>;
  using Lane = std::remove_reference_t<decltype(V{}[0])>;
  static constexpr int kLanes = 64 / sizeof(Lane);
  static constexpr int kWidth = sizeof(V) / sizeof(Lane);
  static constexpr int kRegisters = kLanes / kWidth;
  static constexpr bool kReadsGradient = has(kStep, kGradient);
  static constexpr bool kIsAdam = has(kStep, kSecond) && kReadsGradient;
  using Lanes = std::array<V, kRegisters>;
  using Block = std::array<Lanes, kStepColumns>;

  StepCursor<T, S> at;
  StepCoefficients<Lane> c;
  StepFound found{};

  static V& column(Block& block, StepColumn which, int k) { return block[static_cast<int>(which)][k]; }

  // Elements [i, i + kWidth) into the sums of register k.
  inline void one(Block& block, int64_t i, int k) {
    const V x = load(at.x + i);
    V origin{}, z = x, second{}, reciprocal{};
    if constexpr (kAnchored) origin = load(at.anchor + i);
    const V d = x - origin;
    if constexpr (kReadsGradient) {
      const V one = V{} + 1, gradient = c.scale * load(at.gradient + i);
      column(block, StepColumn::kGradSquare, k) += scaled(gradient) * gradient;
      column(block, StepColumn::kNonFinite, k) += gradient - gradient == 0 ? V{} : one;
      V along = seen_gradient(x, d, gradient, c);
      if constexpr (kStep == Step::kMomentum) {
        V momentum = load(at.first + i);
        along = with_momentum(along, momentum, c);
        store(at.first + i, momentum);
      } else if constexpr (kIsAdam) {
        V first = load(at.first + i);
        second = load(at.second + i);
        update_moments(along, first, second, c);
        store(at.first + i, first);
        store(at.second + i, second);
        if constexpr (has(kStep, kMaximum)) {
          second = larger(load(at.maximum + i), second);
          store(at.maximum + i, second);
        }
        reciprocal = 1 / (c.root * square_root(second) + c.epsilon);
        along = first * reciprocal;
      }
      z = c.shrink * x - c.rate * along;
    } else {
      second = load(at.second + i);
      reciprocal = 1 / (c.root * square_root(second) + c.epsilon);
    }
    V after = z - origin;
    if (c.threshold != 0 || c.pull != 0) {
      after = has(kStep, kSecond) && c.metric != 0 ? pulled_in_metric(after, reciprocal, second, c) : pulled(after, c);
      z = kAnchored ? origin + after : after;
    }
    store(at.x + i, z);
    column(block, StepColumn::kAbs, k) += magnitude(d);
    column(block, StepColumn::kSquare, k) += scaled(d) * d;
    column(block, StepColumn::kStepSquare, k) += scaled(z - x) * (z - x);
    column(block, StepColumn::kZeros, k) += after == 0 ? V{} + 1 : V{};
  }

  inline void rows(int count) {
    Block block{};
    for (int64_t i = 0; i < count * kLanes; i += kLanes)
#pragma GCC unroll 4
      for (int k = 0; k < kRegisters; ++k) one(block, i + k * kWidth, k);
    advance(count * kLanes);
    for (int column = 0; column < kStepColumns; ++column) {
      double sum = 0;
      for (const V& lanes : block[column])
        for (int j = 0; j < kWidth; ++j) sum += lanes[j];
      found.column[column] += sum;
    }
  }

  void advance(int64_t n) {  // arithmetic on an absent (null) array would be undefined
    at.x += n;
    if constexpr (kAnchored) at.anchor += n;
    if constexpr (kReadsGradient) at.gradient += n;
    if constexpr (has(kStep, kFirst)) at.first += n;
    if constexpr (has(kStep, kSecond)) at.second += n;
    if constexpr (has(kStep, kMaximum)) at.maximum += n;
  }

  // The last, incomplete row, padded with zeros, which stay zeros.
  void edge(int count) {
    T x[kLanes] = {}, anchor[kLanes] = {}, gradient[kLanes] = {};
    S first[kLanes] = {}, second[kLanes] = {}, maximum[kLanes] = {};
    const auto here = at;
    const auto copy = [count](auto* to, const auto* from) { std::memcpy(to, from, count * sizeof *to); };
    copy(x, here.x);
    if constexpr (kAnchored) copy(anchor, here.anchor);
    if constexpr (kReadsGradient) copy(gradient, here.gradient);
    if constexpr (has(kStep, kFirst)) copy(first, here.first);
    if constexpr (has(kStep, kSecond)) copy(second, here.second);
    if constexpr (has(kStep, kMaximum)) copy(maximum, here.maximum);
    at = {x, anchor, gradient, first, second, maximum};
    rows(1);
    copy(here.x, x);
    if constexpr (has(kStep, kFirst)) copy(here.first, first);
    if constexpr (kIsAdam) copy(here.second, second);
    if constexpr (has(kStep, kMaximum)) copy(here.maximum, maximum);
    found.column[static_cast<int>(StepColumn::kZeros)] -= kLanes - count;
  }

  StepFound run(int64_t n) {
    for (; n >= kRun * kLanes; n -= kRun * kLanes) rows(kRun);
    if (n >= kLanes) rows(static_cast<int>(n / kLanes));
    if (n % kLanes) edge(static_cast<int>(n % kLanes));
    for (StepColumn squares : {StepColumn::kSquare, StepColumn::kGradSquare, StepColumn::kStepSquare})
      found.column[static_cast<int>(squares)] *= kUnscaled;
    return found;
  }
};

template <class T, class S, Step kStep, bool kAnchored>
StepFound step(const Chunk& chunk, const StepArrays& arrays, const double* coefficients) {
  const int64_t from = chunk.offset();
  const auto at = [from]<class E>(void* array, E*) { return array ? static_cast<E*>(array) + from : nullptr; };
  T* const t = nullptr;
  S* const s = nullptr;
  StepWalk<T, S, kStep, kAnchored> walk{{at(arrays.x, t), at(arrays.anchor, t), at(arrays.gradient, t),
                                         at(arrays.first, s), at(arrays.second, s), at(arrays.maximum, s)},
                                        StepCoefficients<typename StepWalk<T, S, kStep, kAnchored>::Lane>::from(
                                            coefficients)};
  return walk.run(chunk.length());
}

// The switch over the dtypes that a step may write.
template <Step kStep, bool kAnchored>
StepFound step_any(const Chunk& chunk, const StepArrays& arrays, const double* coefficients) {
  switch (chunk.dtype()) {
    case DType::kFloat16:
      return arrays.wide_state ? step<Half, float, kStep, kAnchored>(chunk, arrays, coefficients)
                               : step<Half, Half, kStep, kAnchored>(chunk, arrays, coefficients);
    case DType::kBFloat16:
      return arrays.wide_state ? step<BFloat16, float, kStep, kAnchored>(chunk, arrays, coefficients)
                               : step<BFloat16, BFloat16, kStep, kAnchored>(chunk, arrays, coefficients);
    case DType::kFloat32:
      return step<float, float, kStep, kAnchored>(chunk, arrays, coefficients);
    case DType::kFloat64:
      return step<double, double, kStep, kAnchored>(chunk, arrays, coefficients);
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
      break;
  }
  __builtin_unreachable();  // the bindings admit dtypes that can be written
}

inline StepChunk choose_step(Step step, bool anchored) {
  return visit(step,
               [&]<Step kStep>() -> StepChunk { return anchored ? step_any<kStep, true> : step_any<kStep, false>; });
}

}  // namespace
}  // namespace fused_penalty::cpu
