#include "step_cuda.h"

#include <pybind11/stl.h>

#include "../kernels/cuda/step_launch.h"
#include "step_arrays.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

size_t scratch_bytes(int code, bool anchored, int chunks, int leaves) {
  return cuda::step_scratch_bytes(step_of(code), anchored, chunks, leaves);
}

// As `_cpu.step`, for tensors of one device. `table` is the plan, which is checked here, and `table_there` the address
// of the same on the device; `scratch` a matrix of one column with step_scratch_bytes.
void launch_step(int code, const Table& table, uintptr_t table_there, const Tensors& x, const Tensors* anchor,
                 const Tensors* gradient, const Tensors* first, const Tensors* second, const Tensors* maximum,
                 const py::object& coefficients, const py::object& scratch, const py::object& totals,
                 std::pair<int, int> device, uintptr_t stream) {
  const Step step = step_of(code);
  const Place place{device};
  const StepMemory at(step, {x, anchor, gradient, first, second, maximum}, place);
  const Rows found(totals, "totals", kStepColumns, place),
      given(coefficients, "coefficients", kStepCoefficients, place);
  const Rows room(scratch, "scratch", 1, place);
  expect(given.count == found.count, "coefficients", "and totals must have a row for each slot");
  expect(found.count <= kMaxSlots, "totals", "must have no more slots than a chunk can name");
  checked_chunks(table, x, found.count);
  const auto count = static_cast<int>(table.shape(0)), leaves = static_cast<int>(x.layout.size());
  const auto slots = static_cast<int>(found.count);
  expect(table_there || !count, "table_there", "has no memory");
  const size_t needed = cuda::step_scratch_bytes(step, anchor, count, leaves);
  expect(sizeof(double) * room.count >= needed && reinterpret_cast<uintptr_t>(room.data) % 16 == 0, "scratch",
         "must have step_scratch_bytes at a multiple of 16");
  const py::gil_scoped_release unlocked;
  cuda::launch(
      {step, reinterpret_cast<const Chunk*>(table_there), count, at.x, at.anchor, at.gradient, at.first, at.second,
       at.maximum, at.wide_state.get(), leaves, given.data, true, room.data, found.data, true, slots},
      {device.second, reinterpret_cast<cuda::Stream>(stream)});
}

}  // namespace

void bind_step(py::module_& m) {
  m.def("step_scratch_bytes", &scratch_bytes, py::arg("step"), py::arg("anchored"), py::arg("chunks"),
        py::arg("leaves"));
  m.def("step", &launch_step, py::arg("step"), py::arg("table"), py::arg("table_there"), py::arg("x"),
        py::arg("anchor").none(true), py::arg("gradient").none(true), py::arg("first").none(true),
        py::arg("second").none(true), py::arg("maximum").none(true), py::arg("coefficients"), py::arg("scratch"),
        py::arg("totals"), py::arg("device"), py::arg("stream"));
}

}  // namespace fused_penalty
