// The table of steps: what an optimizer's step with the penalty in it reads, writes and finds. The twin of
// _core/steps.py, and a test compares the two. A new step is a row here and there, and its formula in step_formula.h
// and the reference.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fused_penalty {

// The arrays of a leaf beside x and its anchor, as bits of a set.
enum StepRole : uint32_t {
  kGradient = 1,
  kFirst = 2,    // SGD's momentum, Adam's first moment
  kSecond = 4,   // Adam's second moment
  kMaximum = 8,  // amsgrad's maximum of the second
};
constexpr int kStepRoles = 4;

// Every step writes x; one that reads a gradient writes the state that it has, too.
//      name        arrays
#define FUSED_PENALTY_STEPS(ROW)          \
  ROW(ProxMetric, kSecond)                \
  ROW(Sgd, kGradient)                     \
  ROW(Momentum, kGradient | kFirst)       \
  ROW(Adam, kGradient | kFirst | kSecond) \
  ROW(Amsgrad, kGradient | kFirst | kSecond | kMaximum)

enum class Step : uint32_t {
#define FUSED_PENALTY_ROW(name, arrays) k##name,
  FUSED_PENALTY_STEPS(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
};

struct StepRow {
  const char* name;
  uint32_t arrays;  // a set of roles
};

inline constexpr StepRow kSteps[] = {
#define FUSED_PENALTY_ROW(name, arrays) {#name, arrays},
    FUSED_PENALTY_STEPS(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
};
constexpr int64_t kStepCount = sizeof kSteps / sizeof kSteps[0];

constexpr bool has(Step step, uint32_t role) { return kSteps[static_cast<uint32_t>(step)].arrays & role; }
constexpr bool is_adam(Step step) { return has(step, kGradient) && has(step, kSecond); }
// The array without which a leaf is only read.
constexpr StepRole decides(Step step) { return has(step, kGradient) ? kGradient : kSecond; }

// What is found in a chunk or a slot: sums over d = x - anchor before the step, the gradient as the optimizer is given
// it, and the change of x; elements whose d the step leaves at zero; elements of the gradient that are not finite.
#define FUSED_PENALTY_STEP_COLUMNS(COLUMN) \
  COLUMN(Abs)                              \
  COLUMN(Square)                           \
  COLUMN(GradSquare)                       \
  COLUMN(StepSquare)                       \
  COLUMN(Zeros)                            \
  COLUMN(NonFinite)

enum class StepColumn {
#define FUSED_PENALTY_COLUMN(name) k##name,
  FUSED_PENALTY_STEP_COLUMNS(FUSED_PENALTY_COLUMN)
#undef FUSED_PENALTY_COLUMN
      kCount
};
constexpr int kStepColumns = static_cast<int>(StepColumn::kCount);
constexpr bool is_step_count(int64_t column) { return column >= static_cast<int64_t>(StepColumn::kZeros); }

// The coefficients of a leaf, float64 numbers in this order. step_formula.h says what they are to each step.
#define FUSED_PENALTY_STEP_COEFFICIENTS(ENTRY) \
  ENTRY(scale)                                 \
  ENTRY(l1)                                    \
  ENTRY(l2)                                    \
  ENTRY(decay)                                 \
  ENTRY(shrink)                                \
  ENTRY(keep)                                  \
  ENTRY(rest)                                  \
  ENTRY(take)                                  \
  ENTRY(look)                                  \
  ENTRY(rate)                                  \
  ENTRY(root)                                  \
  ENTRY(epsilon)                               \
  ENTRY(threshold)                             \
  ENTRY(pull)                                  \
  ENTRY(metric)                                \
  ENTRY(skip)

enum class StepCoefficient {
#define FUSED_PENALTY_ENTRY(name) name,
  FUSED_PENALTY_STEP_COEFFICIENTS(FUSED_PENALTY_ENTRY)
#undef FUSED_PENALTY_ENTRY
      kCount
};
constexpr int kStepCoefficients = static_cast<int>(StepCoefficient::kCount);
constexpr double value_of(const double* coefficients, StepCoefficient which) {
  return coefficients[static_cast<int>(which)];
}

inline Step step_of(int64_t code) {
  if (code < 0 || code >= kStepCount) throw std::invalid_argument("no step has the code " + std::to_string(code));
  return static_cast<Step>(code);
}

// f.operator()<kStep>() for the step that `step` is at run time: the one switch over steps.
template <class F>
auto visit(Step step, F f) {
  switch (step) {
#define FUSED_PENALTY_ROW(name, arrays) \
  case Step::k##name:                   \
    return f.template operator()<Step::k##name>();
    FUSED_PENALTY_STEPS(FUSED_PENALTY_ROW)
#undef FUSED_PENALTY_ROW
  }
  throw std::invalid_argument("no step has the code " + std::to_string(static_cast<uint32_t>(step)));
}

}  // namespace fused_penalty
