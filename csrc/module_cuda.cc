// Python module _cuda: the launcher on addresses, the XLA FFI handler, and whether this machine has a device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cuda_launched.h"
#include "jax_cuda.h"
#include "step_cuda.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

// Why no kernel can run here, or None. Static cudart: importing needs no driver.
py::object why_not() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorInsufficientDriver) return py::str("no driver, or one too old for this CUDA runtime");
  if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0)) return py::str("no device");
  if (error != cudaSuccess) return py::str(cudaGetErrorString(error));
  return py::none();
}

// All addresses but those of the leaves, anchors and outputs lie in `table`, `coefficients`, ... on the current device,
// where nothing but a null can be told from what it should be.
void launch(int op_code, bool anchored, uintptr_t table, int chunks, const std::vector<uintptr_t>& addresses,
            int leaves, uintptr_t coefficients, uintptr_t scratch, uintptr_t totals, int slots, uintptr_t stream) {
  const auto expect = [](bool sound, const char* otherwise) {
    if (!sound) throw py::value_error(otherwise);
  };
  const Op op = op_of(op_code);
  expect(leaves >= 0 && chunks >= 0 && slots >= 0 && slots <= kMaxSlots, "leaves, chunks or slots out of range");
  const size_t arrays = 1 + (anchored ? 1 : 0) + (writes(op) ? 1 : 0);
  expect(addresses.size() == arrays * leaves, "one address for each array of each leaf");
  expect((coefficients != 0) == writes(op) || !slots, "coefficients go with the operations that write");
  expect(scratch && (table || !chunks) && (totals || !slots), "table, scratch or totals have no memory");
  std::vector<const void*> at;
  for (uintptr_t a : addresses) at.push_back(reinterpret_cast<const void*>(a));
  launched([&] {
    return cuda::launch({op, anchored, reinterpret_cast<const Chunk*>(table), chunks, at.data(), leaves,
                         reinterpret_cast<const void*>(coefficients), true, reinterpret_cast<void*>(scratch),
                         reinterpret_cast<void*>(totals), true, slots, nullptr},
                        reinterpret_cast<cudaStream_t>(stream));
  });
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.def("why_not", &why_not);
  m.def(
      "scratch_bytes",
      [](int op, int chunks, int addresses) { return cuda::scratch_bytes(op_of(op), chunks, addresses); },
      py::arg("op"), py::arg("chunks"), py::arg("addresses"));
  m.def("launch", &launch, py::arg("op"), py::arg("anchored"), py::arg("table"), py::arg("chunks"),
        py::arg("addresses"), py::arg("leaves"), py::arg("coefficients"), py::arg("scratch"), py::arg("totals"),
        py::arg("slots"), py::arg("stream"));
  bind_step(m);
  m.def("ffi_handlers", [] {
    py::dict handlers;
    handlers["fused_penalty"] = py::capsule(reinterpret_cast<void*>(FusedPenaltyCuda));
    handlers["fused_penalty_step"] = py::capsule(reinterpret_cast<void*>(FusedPenaltyStepCuda));
    return handlers;
  });
}

}  // namespace fused_penalty
