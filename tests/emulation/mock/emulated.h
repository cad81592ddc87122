// A kernel of kernels/cuda as the mock driver launches it.
#pragma once

#include "../cuda_emul.h"
#include "mock.h"

namespace mock {

template <class Arg>
Emulated emulated(const char* name, void (*kernel)(const Arg&)) {
  return {sizeof(Arg), [=](int grid, int block, const void* argument) {
            const auto& arg = *static_cast<const Arg*>(argument);
            emu::Launcher{name, dim3(grid), dim3(block), 0}.run([&] { kernel(arg); });
          }};
}

}  // namespace mock
