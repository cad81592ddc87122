// Python module _cpu: the launcher on addresses, the reader of tensors, and the XLA FFI handlers.
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

// strengths: (slots, 2) float64 at this address, or 0; totals: (slots, columns(op)) float64, written.
void launch(int op_code, const Table& table, const Tensors& x, const Tensors* anchor, const Tensors* out,
            uintptr_t strengths, uintptr_t totals, int64_t slots, int threads, cpu::Isa isa) {
  const auto op = static_cast<Op>(op_code);
  const auto* chunks = reinterpret_cast<const Chunk*>(table.data());
  const auto count = static_cast<int64_t>(table.size() * sizeof(uint32_t) / sizeof(Chunk));
  const auto leaves = static_cast<int64_t>(x.layout.size());
  if (const int64_t i = first_misfit(chunks, count, x.layout.data(), leaves, slots); i >= 0)
    throw py::value_error("chunk " + std::to_string(i) + " of the plan does not fit the tensors");
  if ((anchor && anchor->layout != x.layout) || (out && out->layout != x.layout))
    throw py::value_error("anchor and out must have the sizes and dtypes of x");
  if (!cpu::supported(isa)) throw py::value_error("this processor lacks the instruction set asked for");
  std::vector<void*> writable;
  if (out)
    for (const void* p : out->addresses) writable.push_back(const_cast<void*>(p));
  const py::gil_scoped_release unlocked;
  cpu::CallThreads helpers(threads);
  cpu::launch({op, chunks, count, x.addresses.data(), anchor ? anchor->addresses.data() : nullptr,
               out ? writable.data() : nullptr, reinterpret_cast<const double*>(strengths),
               reinterpret_cast<double*>(totals), slots},
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
        py::arg("out").none(true), py::arg("strengths"), py::arg("totals"), py::arg("slots"), py::arg("threads"),
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
