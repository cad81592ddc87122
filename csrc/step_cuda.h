// The step in the Python module _cuda.
#pragma once

#include <pybind11/pybind11.h>

namespace fused_penalty {

void bind_step(pybind11::module_&);

}  // namespace fused_penalty
