// How a kernel finds the addresses of its launch, and the kernel that puts them into a table where they are too many.
#pragma once

#include "arguments.h"
#include "device.h"

namespace fused_penalty::cuda {

template <int kCapacity>
__device__ const void* address_of(const Arguments<kCapacity>& arg, int i) {
  return arg.more ? arg.more[i] : arg.addresses[i];
}

template <int kCapacity>
__device__ void write_addresses(const SomeAddresses<kCapacity>& some) {
  for (int i = static_cast<int>(threadIdx.x); i < some.count; i += kThreads) some.to[i] = some.addresses[i];
}

}  // namespace fused_penalty::cuda
