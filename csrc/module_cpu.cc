// Python module _cpu: the launcher on tensors, their reader, and the XLA FFI handlers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "../kernels/cpu/launch.h"
#include "jax_cpu.h"
#include "tensors.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

using Table = py::array_t<uint32_t, py::array::c_style>;

void expect(bool sound, const char* name, const char* otherwise) {
  if (!sound) throw py::value_error(std::string(name) + " " + otherwise);
}

// That a flat walk may go over each of these arrays; `x`: the leaves.
void check_arrays(const Tensors& arrays, const char* name, const Tensors& x, bool may_be_absent) {
  expect(arrays.layout == x.layout, name, "must have the sizes and dtypes of x");
  expect(arrays.on_cpu(), name, "must lie on the CPU");
  if (const int64_t i = arrays.first_unreadable(may_be_absent); i >= 0)
    throw py::value_error(std::string(name) + " " + std::to_string(i) +
                          " is absent, or has gaps or overlaps in memory");
}

Op checked_op(int code, bool has_out, bool has_strengths) {
  if (!is_op(code)) throw py::value_error("no operation has the code " + std::to_string(code));
  const auto op = static_cast<Op>(code);
  expect(has_out == writes(op), "out", writes(op) ? "is missing" : "is given to an operation that writes nothing");
  expect(has_strengths == writes(op), "strengths",
         writes(op) ? "are missing" : "are given to an operation that writes nothing");
  return op;
}

// strengths: (slots, 2) float64, a and b of elastic_net.h, for operations that write. totals: (slots, columns(op))
// float64, written.
void launch(int op_code, const Table& table, const Tensors& x, const Tensors* anchor, const Tensors* out,
            const py::object& strengths, const py::object& totals, int threads, cpu::Isa isa) {
  const Op op = checked_op(op_code, out, !strengths.is_none());
  check_arrays(x, "x", x, false);
  if (anchor) check_arrays(*anchor, "anchor", x, false);
  if (out) check_arrays(*out, "out", x, true);
  const Rows found(totals, "totals", columns(op));
  const double* factors = nullptr;
  if (writes(op)) {
    const Rows given(strengths, "strengths", 2);
    expect(given.count == found.count, "strengths", "and totals must have a row for each slot");
    factors = given.data;
  }
  expect(table.ndim() == 2 && table.shape(1) * sizeof(uint32_t) == sizeof(Chunk), "table",
         "must have the shape (chunks, 4)");
  const auto* chunks = reinterpret_cast<const Chunk*>(table.data());
  const auto leaves = static_cast<int64_t>(x.layout.size());
  if (const int64_t i = first_misfit(chunks, table.shape(0), x.layout.data(), leaves, found.count); i >= 0)
    throw py::value_error("chunk " + std::to_string(i) + " of the plan does not fit the tensors");
  expect(cpu::supported(isa), "isa", "is an instruction set that this processor lacks");
  std::vector<void*> writable;
  if (out)
    for (const void* p : out->addresses) writable.push_back(const_cast<void*>(p));
  const py::gil_scoped_release unlocked;
  cpu::CallThreads helpers(threads);
  cpu::launch({op, chunks, table.shape(0), x.addresses.data(), anchor ? anchor->addresses.data() : nullptr,
               out ? writable.data() : nullptr, factors, found.data, found.count},
              helpers, isa);
}

template <class F>
py::capsule target(F* handler) {
  return py::capsule(reinterpret_cast<void*>(handler));
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
      .def("shared", &Tensors::shared, py::arg("others"))
      .def_readonly("devices", &Tensors::devices)
      .def_readonly("irregular", &Tensors::irregular)
      .def_readonly("permuted", &Tensors::permuted);

  m.def("launch", &launch, py::arg("op"), py::arg("table"), py::arg("x"), py::arg("anchor").none(true),
        py::arg("out").none(true), py::arg("strengths").none(true), py::arg("totals"), py::arg("threads"),
        py::arg("isa") = cpu::best_isa());

  m.def("ffi_targets", [] {
    py::dict targets;
    targets["fused_penalty_sums"] = target(FusedPenaltySumsCpu);
    targets["fused_penalty_gradient"] = target(FusedPenaltyGradientCpu);
    targets["fused_penalty_prox"] = target(FusedPenaltyProxCpu);
    targets["fused_penalty_stats"] = target(FusedPenaltyStatsCpu);
    return targets;
  });
}

}  // namespace fused_penalty
