#include "step_arrays.h"

#include "step_state.h"

namespace fused_penalty {
namespace {

// Whether the state has the leaf's dtype (false) or float32 beside 16 bits (true); throws for anything else.
bool is_wide(uint64_t state, uint64_t leaf, const std::string& name) {
  expect(size_of_layout(state) == size_of_layout(leaf), name, "must have the sizes of x");
  const auto wide = is_wide_state(state, leaf);
  expect(wide.has_value(), name, "must have the dtypes of x, or float32 where those have 16 bits");
  return *wide;
}

}  // namespace

StepMemory::StepMemory(Step step, const StepTensors& given, const Place& place) {
  const Tensors& x = given.x;
  struct Array {
    const Tensors* tensors;
    StepRole role;
    const char* name;
  };
  const Array arrays[] = {{given.gradient, kGradient, "gradient"},
                          {given.first, kFirst, "first"},
                          {given.second, kSecond, "second"},
                          {given.maximum, kMaximum, "maximum"}};
  check_arrays(x, "x", x, false, place);
  check_writable(x, "x");
  if (given.anchor) check_arrays(*given.anchor, "anchor", x, false, place);
  const size_t leaves = x.layout.size();
  const Tensors* deciding = decides(step) == kGradient ? given.gradient : given.second;
  wide_state = std::make_unique<bool[]>(leaves);
  const Tensors* known = nullptr;
  for (const Array& array : arrays) {
    expect(!array.tensors == !has(step, array.role), array.name,
           has(step, array.role) ? "is missing" : "is given to a step that has none");
    if (!array.tensors) continue;
    expect(array.tensors->layout.size() == leaves, array.name, "must have as many tensors as x");
    if (array.role == kGradient) {
      check_arrays(*array.tensors, array.name, x, true, place);
      continue;
    }
    check_memory(*array.tensors, array.name, true, place);
    for (size_t i = 0; i < leaves; ++i) {
      if (deciding->addresses[i])
        expect(array.tensors->addresses[i] || !size_of_layout(x.layout[i]), array.name,
               "is absent where there is a gradient");
      const bool mine = is_wide(array.tensors->layout[i], x.layout[i], array.name);
      expect(!known || mine == wide_state[i], array.name, "must have the dtypes of the rest of the state");
      wide_state[i] = mine;
    }
    known = array.tensors;
  }
  const auto read = [](const Tensors* tensors) { return tensors ? tensors->addresses.data() : nullptr; };
  const auto written = [this](int i, const Tensors* tensors) -> void* const* {
    if (!tensors) return nullptr;
    held[i] = writable_addresses(*tensors);
    return held[i].data();
  };
  this->x = written(0, &x);
  anchor = read(given.anchor);
  gradient = read(given.gradient);
  first = written(1, given.first);
  second = written(2, given.second);
  maximum = written(3, given.maximum);
}

}  // namespace fused_penalty
