// Python module _cpu: the launcher on tensors, their reader, and the XLA FFI handler.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "../kernels/cpu/launch.h"
#include "../kernels/cpu/pool.h"
#include "arrays.h"
#include "jax_cpu.h"
#include "step_cpu.h"
#include "tensors.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

Op checked_op(int code, bool has_out, bool has_coefficients) {
  const Op op = op_of(code);
  expect(has_out == writes(op), "out", writes(op) ? "is missing" : "is given to an operation that writes nothing");
  expect(has_coefficients == writes(op), "coefficients",
         writes(op) ? "are missing" : "are given to an operation that writes nothing");
  return op;
}

// coefficients: (slots, 2) float64, a and b of elastic_net.h, for operations that write. totals: (slots, columns(op))
// float64, written.
void launch(int op_code, const Table& table, const Tensors& x, const Tensors* anchor, const Tensors* out,
            const py::object& coefficients, const py::object& totals, int threads, cpu::Isa isa) {
  const Op op = checked_op(op_code, out, !coefficients.is_none());
  check_arrays(x, "x", x, false);
  if (anchor) check_arrays(*anchor, "anchor", x, false);
  if (out) {
    check_arrays(*out, "out", x, true);
    check_writable(*out, "out");
  }
  const Rows found(totals, "totals", columns(op));
  const double* pairs = nullptr;
  if (writes(op)) {
    const Rows given(coefficients, "coefficients", 2);
    expect(given.count == found.count, "coefficients", "and totals must have a row for each slot");
    pairs = given.data;
  }
  const Chunk* chunks = checked_chunks(table, x, found.count);
  expect(cpu::supported(isa), "isa", "is an instruction set that this processor lacks");
  const std::vector<void*> writable = out ? writable_addresses(*out) : std::vector<void*>();
  const py::gil_scoped_release unlocked;
  cpu::PoolThreads helpers(threads);
  cpu::launch({op, chunks, table.shape(0), x.addresses.data(), anchor ? anchor->addresses.data() : nullptr,
               out ? writable.data() : nullptr, pairs, found.data, found.count},
              helpers, isa);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  py::enum_<cpu::Isa>(m, "Isa")
      .value("portable", cpu::Isa::kPortable)
      .value("avx2", cpu::Isa::kAvx2)
      .value("avx512", cpu::Isa::kAvx512);
  m.def("supported", &cpu::supported);
  m.def("best_isa", &cpu::best_isa);

  py::class_<Tensors>(m, "Tensors")
      .def(py::init<const py::list&, const Tensors*>(), py::arg("tensors"), py::arg("like") = nullptr)
      .def_property_readonly("layout",
                             [](const Tensors& t) {
                               return py::bytes(reinterpret_cast<const char*>(t.layout.data()),
                                                t.layout.size() * sizeof(uint64_t));
                             })
      .def_property_readonly("address_bytes",
                             [](const Tensors& t) {
                               return py::bytes(reinterpret_cast<const char*>(t.addresses.data()),
                                                t.addresses.size() * sizeof(void*));
                             })
      .def_property_readonly("addresses",
                             [](const Tensors& t) {
                               std::vector<uintptr_t> out;
                               for (const void* p : t.addresses) out.push_back(reinterpret_cast<uintptr_t>(p));
                               return out;
                             })
      .def_property_readonly("has_float64",
                             [](const Tensors& t) {
                               return std::any_of(t.layout.begin(), t.layout.end(), [](uint64_t word) {
                                 return dtype_of_layout(word) == DType::kFloat64;
                               });
                             })
      .def_property_readonly("all_writable",
                             [](const Tensors& t) {
                               return std::all_of(t.layout.begin(), t.layout.end(),
                                                  [](uint64_t word) { return is_writable(dtype_of_layout(word)); });
                             })
      .def("shared", &Tensors::shared, py::arg("others"))
      .def_readonly("devices", &Tensors::devices)
      .def_readonly("irregular", &Tensors::irregular)
      .def_readonly("empty", &Tensors::empty)
      .def_readonly("permuted", &Tensors::permuted);

  m.def("launch", &launch, py::arg("op"), py::arg("table"), py::arg("x"), py::arg("anchor").none(true),
        py::arg("out").none(true), py::arg("coefficients").none(true), py::arg("totals"), py::arg("threads"),
        py::arg("isa") = cpu::best_isa());

  bind_step(m);

  // The native tables, for the test that compares the twins.
  m.def("operations", [] {
    py::list rows;
    for (const Operation& row : kOperations) rows.append(py::make_tuple(row.name, row.reads, row.writes, row.columns));
    return rows;
  });
  m.def("dtypes", [] {
    py::list rows;
    for (const ElementType& row : kDTypes) rows.append(py::make_tuple(row.name, row.bytes, row.writable));
    return rows;
  });

  m.def("ffi_handlers", [] {
    py::dict handlers;
    handlers["fused_penalty"] = py::capsule(reinterpret_cast<void*>(FusedPenaltyCpu));
    handlers["fused_penalty_step"] = py::capsule(reinterpret_cast<void*>(FusedPenaltyStepCpu));
    return handlers;
  });
}

}  // namespace fused_penalty
