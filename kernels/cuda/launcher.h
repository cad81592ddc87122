// What the launchers of operations and of steps share: scratch, addresses, the grid, the launch.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>

#include "arguments.h"
#include "launch.h"

namespace fused_penalty::cuda {

// A launch holds 4 KB of arguments on every driver, 32,764 bytes since CUDA 12.1.
constexpr int kFew = 480, kMany = 4080;
static_assert(sizeof(Arguments<kFew>) <= 4096 && sizeof(Arguments<kMany>) <= 32764);

// Scratch: the ticket, the partials, and the addresses where they are too many for the arguments.
constexpr size_t kTicketBytes = 16;
constexpr size_t partial_bytes(int columns, int chunk_count) {
  return sizeof(double) * columns * std::max(chunk_count, 1);
}
constexpr size_t scratch_bytes(int columns, int chunk_count, int addresses) {
  return kTicketBytes + partial_bytes(columns, chunk_count) + (addresses > kMany ? addresses * sizeof(void*) : 0);
}

// Blocks of one kernel that are resident at once, so that each takes its share of chunks in one wave; asked once on
// each device.
class Residents {
 public:
  template <class Arg>
  Status ask(void (*kernel)(Arg), int& blocks) {
    int device = 0;
    if (auto e = cudaGetDevice(&device); e != cudaSuccess) return {e, "cudaGetDevice"};
    auto& cached = known_[device % known_.size()];
    if (cached == 0) {
      int processors = 0, each = 0;
      if (auto e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device); e != cudaSuccess)
        return {e, "cudaDeviceGetAttribute"};
      if (auto e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, kThreads, 0); e != cudaSuccess)
        return {e, "cudaOccupancyMaxActiveBlocksPerMultiprocessor"};
      cached = processors * std::max(each, 1);
    }
    blocks = cached;
    return {};
  }

 private:
  std::array<std::atomic<int>, 64> known_{};
};

// Launches the kernel. Of `arg` the scratch is filled in here, and the addresses, of which `address(i)` is number i.
template <int kCapacity, class Address>
Status run(void (*kernel)(Arguments<kCapacity>), Residents& residents, Arguments<kCapacity>& arg, int columns,
           void* scratch, int addresses, const Address& address, cudaStream_t stream) {
  auto* const bytes = static_cast<char*>(scratch);
  arg.ticket = reinterpret_cast<unsigned*>(bytes);
  arg.partials = reinterpret_cast<double*>(bytes + kTicketBytes);
  const auto copy = [&](int from, int count, const void** to) {
    for (int i = 0; i < count; ++i) to[i] = address(from + i);
  };
  if (addresses <= kCapacity) {
    copy(0, addresses, arg.addresses);
  } else {
    auto* const table = reinterpret_cast<const void**>(bytes + kTicketBytes + partial_bytes(columns, arg.chunk_count));
    for (int from = 0; from < addresses; from += kCapacity) {
      SomeAddresses<kCapacity> some{table + from, std::min(kCapacity, addresses - from), {}};
      copy(from, some.count, some.addresses);
      if (auto e = LAUNCH(write_addresses_kernel<kCapacity>, 1, kThreads, 0, stream, some); e != cudaSuccess)
        return {e, "the launch that writes addresses"};
    }
    arg.more = table;
  }
  if (auto e = cudaMemsetAsync(arg.ticket, 0, sizeof(unsigned), stream); e != cudaSuccess)
    return {e, "cudaMemsetAsync of the ticket"};
  int resident = 0;
  if (auto status = residents.ask(kernel, resident); status.where) return status;
  const int blocks = std::clamp(arg.chunk_count, 1, resident);
  if (auto e = LAUNCH(kernel, blocks, kThreads, 0, stream, arg); e != cudaSuccess)
    return {e, "the launch of the kernel"};
  return {};
}

// An error that is reported here: whoever asks next did not cause it.
inline Status reported(Status status) {
  if (status.where) (void)cudaGetLastError();
  return status;
}

}  // namespace fused_penalty::cuda
