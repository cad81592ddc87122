// Which addresses the launch of a step passes: x of every leaf, then the anchors, then the arrays of the step in the
// order of their roles.
#pragma once

#include "../steps.h"
#include "arguments.h"

namespace fused_penalty::cuda {

// The lowest bit of an address of x, which its alignment leaves free: the state is float32 beside 16 bits.
constexpr uintptr_t kWideState = 1;

// How many arrays a leaf has, and which of them an array of this role is; x is number 0.
constexpr int step_arrays(Step step, bool anchored, uint32_t before = 1u << kStepRoles) {
  int count = anchored ? 2 : 1;
  for (uint32_t role = 1; role < before; role *= 2) count += has(step, role) ? 1 : 0;
  return count;
}

}  // namespace fused_penalty::cuda
