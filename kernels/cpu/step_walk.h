// One chunk of a step, one pass: every array is read once and written once, and the sums come from the same registers.
// Included by one translation unit per instruction set; as in walk.h, all give the same bits.
#pragma once

#include <algorithm>
#include <array>

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
  using Row = RowOf<T, 64>;
  using V = typename Row::V;
  using Lane = typename Row::Lane;
  using Lanes = typename Row::Registers;
  static constexpr int kLanes = Row::kLanes, kWidth = Row::kWidth, kRegisters = Row::kRegisters;
  static constexpr int kParts = 8;  // double accumulators of a column, which one register or two can hold
  using Totals = std::array<double, kParts>;
  using Coefficients = StepCoefficients<V, Lane>;
  struct Block {
    Lanes abs, square, grad_square, step_square;
    std::array<decltype(V{} == V{}), kRegisters> zeros;
  };

  StepCursor<T, S> at;
  Coefficients c;
  std::array<Totals, kStepColumns> totals{};

  // Elements [i, i + kWidth) into the sums of register k. `c` is a copy that no store into an array can change.
  inline void one(Block& block, const Coefficients& c, int64_t i, int k) {
    StepElement<V> e{load(at.x + i), {}, {}, {}, {}, {}};
    if constexpr (kAnchored) e.origin = load(at.anchor + i);
    if constexpr (has(kStep, kGradient)) e.gradient = load(at.gradient + i);
    if constexpr (has(kStep, kFirst)) e.first = load(at.first + i);
    if constexpr (has(kStep, kSecond)) e.second = load(at.second + i);
    if constexpr (has(kStep, kMaximum)) e.maximum = load(at.maximum + i);
    const V x = e.x, d = x - e.origin;
    const V after = stepped<kStep, kAnchored>(e, c, [](V v) { return square_root(v); });
    store(at.x + i, e.x);
    if constexpr (has(kStep, kFirst)) store(at.first + i, e.first);
    if constexpr (is_adam(kStep)) store(at.second + i, e.second);
    if constexpr (has(kStep, kMaximum)) store(at.maximum + i, e.maximum);
    if constexpr (has(kStep, kGradient)) block.grad_square[k] += scaled(e.gradient) * e.gradient;
    block.abs[k] += absolute(d);
    block.square[k] += scaled(d) * d;
    block.step_square[k] += scaled(e.x - x) * (e.x - x);
    block.zeros[k] -= after == 0;  // a comparison gives -1 for true
  }

  inline void rows(int count) {
    Block block{};
    const Coefficients coefficients = c;
    for (int64_t i = 0; i < count * kLanes; i += kLanes)
#pragma GCC unroll 4
      for (int k = 0; k < kRegisters; ++k) one(block, coefficients, i + k * kWidth, k);
    add(StepColumn::kAbs, block.abs);
    add(StepColumn::kSquare, block.square);
    add(StepColumn::kStepSquare, block.step_square);
    add(StepColumn::kZeros, block.zeros);
    if constexpr (has(kStep, kGradient)) add(StepColumn::kGradSquare, block.grad_square);
    advance(count * kLanes);
  }

  template <class Registers>
  inline void add(StepColumn column, const Registers& registers) {
    Totals& sums = totals[static_cast<int>(column)];
    for (int k = 0; k < kRegisters; ++k)
      for (int j = 0; j < kWidth; ++j) sums[(k * kWidth + j) % kParts] += static_cast<double>(registers[k][j]);
  }

  void advance(int64_t n) {  // arithmetic on an absent (null) array would be undefined
    at.x += n;
    if constexpr (kAnchored) at.anchor += n;
    if constexpr (has(kStep, kGradient)) at.gradient += n;
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
    if constexpr (has(kStep, kGradient)) copy(gradient, here.gradient);
    if constexpr (has(kStep, kFirst)) copy(first, here.first);
    if constexpr (has(kStep, kSecond)) copy(second, here.second);
    if constexpr (has(kStep, kMaximum)) copy(maximum, here.maximum);
    at = {x, anchor, gradient, first, second, maximum};
    rows(1);
    copy(here.x, x);
    if constexpr (has(kStep, kFirst)) copy(here.first, first);
    if constexpr (is_adam(kStep)) copy(here.second, second);
    if constexpr (has(kStep, kMaximum)) copy(here.maximum, maximum);
    totals[static_cast<int>(StepColumn::kZeros)][0] -= kLanes - count;
  }

  // Elements of the gradient that are not finite. Asked for only where its sum of squares is not.
  double non_finite(const T* gradient, int64_t n) const {
    double count = 0;
    for (int64_t i = 0; i < n; i += kWidth) {
      T some[kWidth] = {};
      std::memcpy(some, gradient + i, std::min<int64_t>(kWidth, n - i) * sizeof(T));
      const V lanes = c.scale * load(some);
      for (int j = 0; j < std::min<int64_t>(kWidth, n - i); ++j) count += !std::isfinite(lanes[j]);
    }
    return count;
  }

  StepFound run(int64_t n) {
    const T* const gradient = at.gradient;
    const int64_t whole = n;
    for (; n >= kRun * kLanes; n -= kRun * kLanes) rows(kRun);
    if (n >= kLanes) rows(static_cast<int>(n / kLanes));
    if (n % kLanes) edge(static_cast<int>(n % kLanes));
    StepFound found{};
    for (int column = 0; column < kStepColumns; ++column)
      for (double part : totals[column]) found.column[column] += part;
    const auto of = [&found](StepColumn column) -> double& { return found.column[static_cast<int>(column)]; };
    for (StepColumn squares : {StepColumn::kSquare, StepColumn::kGradSquare, StepColumn::kStepSquare})
      of(squares) *= kUnscaled;
    if constexpr (has(kStep, kGradient))
      if (!std::isfinite(of(StepColumn::kGradSquare))) of(StepColumn::kNonFinite) = non_finite(gradient, whole);
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
                                        StepWalk<T, S, kStep, kAnchored>::Coefficients::from(coefficients)};
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
