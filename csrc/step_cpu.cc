#include "step_cpu.h"

#include <pybind11/stl.h>

#include <memory>

#include "../kernels/cpu/step_launch.h"
#include "cpu_arrays.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

// Whether the state has the leaf's dtype (false) or float32 beside 16 bits (true); throws for anything else.
bool is_wide(uint64_t state, uint64_t leaf, const std::string& name) {
  expect(size_of_layout(state) == size_of_layout(leaf), name, "must have the sizes of x");
  const DType mine = dtype_of_layout(state), its = dtype_of_layout(leaf);
  const bool wide = mine == DType::kFloat32 && (its == DType::kFloat16 || its == DType::kBFloat16);
  expect(wide || mine == its, name, "must have the dtypes of x, or float32 where those have 16 bits");
  return wide;
}

// state: {name: tensors} in the order of the roles, for those that the step has. totals: (slots, kStepColumns) float64,
// written; coefficients: (slots, kStepCoefficients) float64.
void launch_step(int code, const Table& table, const Tensors& x, const Tensors* anchor, const Tensors* gradient,
                 const Tensors* first, const Tensors* second, const Tensors* maximum, const py::object& coefficients,
                 const py::object& totals, int threads, cpu::Isa isa) {
  const Step step = step_of(code);
  struct Array {
    const Tensors* tensors;
    StepRole role;
    const char* name;
  };
  const Array arrays[] = {{gradient, kGradient, "gradient"},
                          {first, kFirst, "first"},
                          {second, kSecond, "second"},
                          {maximum, kMaximum, "maximum"}};
  check_arrays(x, "x", x, false);
  check_writable(x, "x");
  if (anchor) check_arrays(*anchor, "anchor", x, false);
  const size_t leaves = x.layout.size();
  const Tensors* decides = has(step, kGradient) ? gradient : second;  // absent: that leaf is only read
  const auto wide = std::make_unique<bool[]>(leaves);
  const Tensors* known = nullptr;
  for (const Array& array : arrays) {
    expect(!array.tensors == !has(step, array.role), array.name,
           has(step, array.role) ? "is missing" : "is given to a step that has none");
    if (!array.tensors) continue;
    expect(array.tensors->layout.size() == leaves, array.name, "must have as many tensors as x");
    if (array.role == kGradient) {
      check_arrays(*array.tensors, array.name, x, true);
      continue;
    }
    check_memory(*array.tensors, array.name, true);
    for (size_t i = 0; i < leaves; ++i) {
      if (decides->addresses[i])
        expect(array.tensors->addresses[i] || !size_of_layout(x.layout[i]), array.name,
               "is absent where there is a gradient");
      const bool mine = is_wide(array.tensors->layout[i], x.layout[i], array.name);
      expect(!known || mine == wide[i], array.name, "must have the dtypes of the rest of the state");
      wide[i] = mine;
    }
    known = array.tensors;
  }
  const Rows found(totals, "totals", kStepColumns), given(coefficients, "coefficients", kStepCoefficients);
  expect(given.count == found.count, "coefficients", "and totals must have a row for each slot");
  const Chunk* chunks = checked_chunks(table, x, found.count);
  expect(cpu::supported(isa), "isa", "is an instruction set that this processor lacks");
  const auto addresses = [](const Tensors* tensors) {
    return tensors ? writable_addresses(*tensors) : std::vector<void*>();
  };
  const auto xs = addresses(&x), firsts = addresses(first), seconds = addresses(second), maxima = addresses(maximum);
  const auto data = [](const std::vector<void*>& of) { return of.empty() ? nullptr : of.data(); };
  const py::gil_scoped_release unlocked;
  cpu::CallThreads helpers(threads);
  cpu::launch({step, chunks, table.shape(0), xs.data(), anchor ? anchor->addresses.data() : nullptr,
               gradient ? gradient->addresses.data() : nullptr, data(firsts), data(seconds), data(maxima), wide.get(),
               given.data, found.data, found.count},
              helpers, isa);
}

}  // namespace

void bind_step(py::module_& m) {
  m.def("step", &launch_step, py::arg("step"), py::arg("table"), py::arg("x"), py::arg("anchor").none(true),
        py::arg("gradient").none(true), py::arg("first").none(true), py::arg("second").none(true),
        py::arg("maximum").none(true), py::arg("coefficients"), py::arg("totals"), py::arg("threads"),
        py::arg("isa") = cpu::best_isa());

  // The native tables, for the test that compares the twins.
  m.def("steps", [] {
    py::list rows;
    for (const StepRow& row : kSteps) rows.append(py::make_tuple(row.name, row.arrays));
    return rows;
  });
#define FUSED_PENALTY_NAME(name) #name,
  m.def("step_columns", [] { return std::vector<std::string>{FUSED_PENALTY_STEP_COLUMNS(FUSED_PENALTY_NAME)}; });
  m.def("step_coefficients",
        [] { return std::vector<std::string>{FUSED_PENALTY_STEP_COEFFICIENTS(FUSED_PENALTY_NAME)}; });
#undef FUSED_PENALTY_NAME
}

}  // namespace fused_penalty
