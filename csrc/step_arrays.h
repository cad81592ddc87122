// The arrays of a step as Python gives them: what the modules _cpu and _cuda check of them alike.
#pragma once

#include <memory>
#include <vector>

#include "../kernels/steps.h"
#include "arrays.h"

namespace fused_penalty {

// Null where the step has no such array; an absent tensor (address 0) stands for a leaf that has none.
struct StepTensors {
  const Tensors& x;
  const Tensors *anchor, *gradient, *first, *second, *maximum;
};

// The same after all checks: an address for each leaf, null where there is no such array.
struct StepMemory {
  StepMemory(Step, const StepTensors&, const Place&);

  std::vector<void*> held[4];  // x and the state
  void* const* x;
  const void* const* anchor;
  const void* const* gradient;
  void* const* first;
  void* const* second;
  void* const* maximum;
  std::unique_ptr<bool[]> wide_state;  // per leaf: whether the state of a 16-bit leaf is float32
};

}  // namespace fused_penalty
