// What the launchers of operations and of steps share: scratch, addresses, the grid, the launch.
#pragma once

#include <algorithm>
#include <string>

#include "arguments.h"
#include "launch.h"
#include "loaded.h"
#include "names.h"

namespace fused_penalty::cuda {

// Scratch: the ticket, the partials, and the addresses where they are too many for the arguments.
constexpr size_t kTicketBytes = 16;
constexpr size_t partial_bytes(int columns, int chunk_count) {
  return sizeof(double) * columns * std::max(chunk_count, 1);
}
constexpr size_t scratch_bytes(int columns, int chunk_count, int addresses) {
  return kTicketBytes + partial_bytes(columns, chunk_count) + (addresses > kMany ? addresses * sizeof(void*) : 0);
}

// The arguments travel by value.
template <class Arg>
void launch_kernel(const std::string& name, const Loaded& loaded, int blocks, Arg& arg, Stream stream) {
  void* parameters[] = {&arg};
  check(driver().cuLaunchKernel(loaded.kernel, blocks, 1, 1, kThreads, 1, 1, 0, stream, parameters, nullptr),
        "cuLaunchKernel of " + name);
}

// Launches the kernel. Of `arg` the scratch is filled in here, and the addresses, of which `address(i)` is number i.
template <int kCapacity, class Address>
void run(const std::string& name, Arguments<kCapacity>& arg, int columns, void* scratch, int addresses,
         const Address& address, const Queue& queue) {
  const Loaded kernel = load(name, queue.device, queue.stream);
  auto* const bytes = static_cast<char*>(scratch);
  arg.ticket = reinterpret_cast<unsigned*>(bytes);
  arg.partials = reinterpret_cast<double*>(bytes + kTicketBytes);
  const auto copy = [&](int from, int count, const void** to) {
    for (int i = 0; i < count; ++i) to[i] = address(from + i);
  };
  if (addresses <= kCapacity) {
    copy(0, addresses, arg.addresses);
  } else {
    const Loaded writer = load(kAddressesKernel, queue.device, queue.stream);
    auto* const table = reinterpret_cast<const void**>(bytes + kTicketBytes + partial_bytes(columns, arg.chunk_count));
    for (int from = 0; from < addresses; from += kMany) {
      SomeAddresses<kMany> some{table + from, std::min(kMany, addresses - from), {}};
      copy(from, some.count, some.addresses);
      launch_kernel(kAddressesKernel, writer, 1, some, queue.stream);
    }
    arg.more = table;
  }
  check(driver().cuMemsetD32Async(reinterpret_cast<uintptr_t>(arg.ticket), 0, 1, queue.stream),
        "cuMemsetD32Async of the ticket");
  launch_kernel(name, kernel, std::clamp(arg.chunk_count, 1, kernel.blocks), arg, queue.stream);
}

// Loads the kernel, and the one that writes addresses where they are too many.
inline void prepare_kernels(const std::string& name, size_t addresses, const Queue& queue) {
  load(name, queue.device, queue.stream);
  if (addresses > kMany) load(kAddressesKernel, queue.device, queue.stream);
}

}  // namespace fused_penalty::cuda
