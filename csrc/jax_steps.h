// What the handlers of the target `fused_penalty_step` check and convert, on all platforms alike.
//
//   fused_penalty_step {step, anchored}: (table, coefficients, leaf..., [anchor...], array of each role...)
//                                        -> (totals, [scratch], new leaf..., [new state of each role...])
//
// Every leaf has all arrays of the step, in the order of kernels/steps.h; a step that reads a gradient also writes its
// state. A step is made in place, so each new array must lie where the old one lies: the program says so
// (input_output_aliases), and XLA copies first what is still needed. Coefficients and totals are float64 or 32 bits
// wide; in narrow totals the counts are uint32.
#pragma once

#include <memory>

#include "../kernels/steps.h"
#include "jax_operands.h"
#include "step_state.h"

namespace fused_penalty {

struct StepOperands {
  ffi::Buffer<ffi::U32> table;
  ffi::RemainingArgs args;
  int32_t step;
  bool anchored;
  ffi::RemainingRets results;
};

// The same after all checks. On a GPU all addresses are of its memory.
struct StepCall {
  Step step;
  const Chunk* chunks;
  int64_t chunk_count, slots;
  std::vector<uint64_t> layouts;  // of the leaves
  std::vector<void*> x;
  std::vector<const void*> anchor, gradient;
  std::vector<void*> first, second, maximum;
  std::unique_ptr<bool[]> wide_state;
  const void* coefficients;
  bool wide_coefficients;
  void* totals;
  bool wide_totals;
  std::optional<ffi::AnyBuffer> scratch;
};

inline ffi::ErrorOr<StepCall> check(const StepOperands& given, bool with_scratch) {
  StepCall call{};
  call.step = step_of(given.step);
  const ChunkRows table(given.table);
  call.chunks = table.chunks;
  call.chunk_count = table.count;

  Taker results(given.results);
  const Matrix totals = take_totals(results, kStepColumns, ffi::U32);
  call.slots = totals.rows;
  call.totals = totals.data;
  call.wide_totals = totals.wide;
  if (with_scratch) call.scratch = take_scratch(results);

  Taker args(given.args);
  const Matrix coefficients = take_coefficients(args, kStepCoefficients, call.slots);
  call.coefficients = coefficients.data;
  call.wide_coefficients = coefficients.wide;

  struct Array {
    StepRole role;
    std::vector<void*>* addresses;
  };
  const Array states[] = {{kFirst, &call.first}, {kSecond, &call.second}, {kMaximum, &call.maximum}};
  const bool has_gradient = has(call.step, kGradient);
  size_t each = 1 + given.anchored + has_gradient;
  for (const Array& state : states) each += has(call.step, state.role);
  if (args.left() % each) return invalid("one array of each kind for each leaf");
  const size_t leaves = args.left() / each;

  for (size_t i = 0; i < leaves; ++i) {
    const auto leaf = args.take();
    const auto word = leaf ? layout(*leaf) : std::nullopt;
    if (!word || !is_writable(dtype_of_layout(*word)))
      return invalid("leaf " + std::to_string(i) + " has a dtype that no kernel writes");
    call.layouts.push_back(*word);
    call.x.push_back(leaf->untyped_data());
  }
  const auto take_like = [&](std::vector<const void*>& addresses) {
    for (size_t i = 0; i < leaves; ++i) {
      const auto array = args.take();
      if (!array || layout(*array) != call.layouts[i]) return false;
      addresses.push_back(array->untyped_data());
    }
    return true;
  };
  if (given.anchored && !take_like(call.anchor)) return invalid("an anchor is not like its leaf");
  if (has_gradient && !take_like(call.gradient)) return invalid("a gradient is not like its leaf");

  call.wide_state = std::make_unique<bool[]>(leaves);
  bool first_state = true;
  for (const Array& state : states) {
    if (!has(call.step, state.role)) continue;
    for (size_t i = 0; i < leaves; ++i) {
      const auto array = args.take();
      const auto word = array ? layout(*array) : std::nullopt;
      const auto wide = word ? is_wide_state(*word, call.layouts[i]) : std::nullopt;
      if (!wide || (!first_state && *wide != call.wide_state[i]))
        return invalid("the state of leaf " + std::to_string(i) +
                       " must have its shape, and its dtype, or float32 beside 16 bits, throughout");
      call.wide_state[i] = *wide;
      state.addresses->push_back(array->untyped_data());
    }
    first_state = false;
  }

  const auto in_place = [&](const std::vector<void*>& addresses, bool wide_allowed) {
    for (size_t i = 0; i < leaves; ++i) {
      const auto made = results.take();
      const auto word = made ? layout(*made) : std::nullopt;
      const bool wide = wide_allowed && call.wide_state[i];
      const uint64_t wanted = wide ? layout_of(size_of_layout(call.layouts[i]), DType::kFloat32) : call.layouts[i];
      if (word != wanted || (made->untyped_data() != addresses[i] && size_of_layout(wanted))) return false;
    }
    return true;
  };
  if (!in_place(call.x, false)) return invalid("each new leaf must lie where its leaf lies");
  for (const Array& state : states)
    if (has_gradient && has(call.step, state.role) && !in_place(*state.addresses, true))
      return invalid("each new state must lie where the old one lies");
  if (results.left()) return invalid("more results than the step has");
  return call;
}

}  // namespace fused_penalty
