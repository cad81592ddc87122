#include "step_cpu.h"

#include <pybind11/stl.h>

#include "../kernels/cpu/pool.h"
#include "../kernels/cpu/step_launch.h"
#include "step_arrays.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

// totals: (slots, kStepColumns) float64, written; coefficients: (slots, kStepCoefficients) float64.
void launch_step(int code, const Table& table, const Tensors& x, const Tensors* anchor, const Tensors* gradient,
                 const Tensors* first, const Tensors* second, const Tensors* maximum, const py::object& coefficients,
                 const py::object& totals, int threads, cpu::Isa isa) {
  const Step step = step_of(code);
  const StepMemory at(step, {x, anchor, gradient, first, second, maximum}, Place{});
  const Rows found(totals, "totals", kStepColumns), given(coefficients, "coefficients", kStepCoefficients);
  expect(given.count == found.count, "coefficients", "and totals must have a row for each slot");
  const Chunk* chunks = checked_chunks(table, x, found.count);
  expect(cpu::supported(isa), "isa", "is an instruction set that this processor lacks");
  const py::gil_scoped_release unlocked;
  cpu::PoolThreads helpers(threads);
  cpu::launch({step, chunks, table.shape(0), at.x, at.anchor, at.gradient, at.first, at.second, at.maximum,
               at.wide_state.get(), given.data, found.data, found.count},
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
