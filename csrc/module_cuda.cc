// Python module _cuda: the launcher on addresses, the XLA FFI handlers, and whether this machine has a device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../kernels/cuda/launch.h"
#include "../kernels/cuda/loaded.h"
#include "jax_cuda.h"
#include "step_cuda.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

// (whether a driver and a device are here, why the kernels cannot run on any, or None). Of several devices the kernels
// need not run on all: a launch on another says so.
std::pair<bool, std::optional<std::string>> presence() {
  try {
    int devices = 0;
    cuda::check(cuda::driver().cuDeviceGetCount(&devices), "cuDeviceGetCount");
    if (devices == 0) return {false, "no device"};
    std::string why;
    for (int i = 0; i < devices; ++i) {
      why = cuda::why_not_on(i);
      if (why.empty()) return {true, std::nullopt};
    }
    return {true, why};
  } catch (const cuda::Absent& error) {
    return {false, error.what()};
  } catch (const std::exception& error) {
    return {true, error.what()};
  }
}

// All addresses but those of the leaves, anchors and outputs lie in `table`, `coefficients`, ... on the device, where
// nothing but a null can be told from what it should be. Without the GIL, since a launch waits where the stream's queue
// is full, maybe for a callback that needs it.
void launch(int op_code, bool anchored, uintptr_t table, int chunks, const std::vector<uintptr_t>& addresses,
            int leaves, uintptr_t coefficients, uintptr_t scratch, uintptr_t totals, int slots, int device,
            uintptr_t stream) {
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
  const py::gil_scoped_release unlocked;
  cuda::launch({op, anchored, reinterpret_cast<const Chunk*>(table), chunks, at.data(), leaves,
                reinterpret_cast<const void*>(coefficients), true, reinterpret_cast<void*>(scratch),
                reinterpret_cast<void*>(totals), true, slots, nullptr},
               {device, reinterpret_cast<cuda::Stream>(stream)});
}

py::dict stages(XLA_FFI_Error* (*initialize)(XLA_FFI_CallFrame*), XLA_FFI_Error* (*execute)(XLA_FFI_CallFrame*)) {
  py::dict found;
  found["initialize"] = py::capsule(reinterpret_cast<void*>(initialize));
  found["execute"] = py::capsule(reinterpret_cast<void*>(execute));
  return found;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.def("presence", &presence);
  m.def(
      "scratch_bytes",
      [](int op, int chunks, int addresses) { return cuda::scratch_bytes(op_of(op), chunks, addresses); },
      py::arg("op"), py::arg("chunks"), py::arg("addresses"));
  m.def("launch", &launch, py::arg("op"), py::arg("anchored"), py::arg("table"), py::arg("chunks"),
        py::arg("addresses"), py::arg("leaves"), py::arg("coefficients"), py::arg("scratch"), py::arg("totals"),
        py::arg("slots"), py::arg("device"), py::arg("stream"));
  bind_step(m);
  m.def("ffi_handlers", [] {
    py::dict handlers;
    handlers["fused_penalty"] = stages(FusedPenaltyCudaInitialize, FusedPenaltyCuda);
    handlers["fused_penalty_step"] = stages(FusedPenaltyStepCudaInitialize, FusedPenaltyStepCuda);
    return handlers;
  });
}

}  // namespace fused_penalty
