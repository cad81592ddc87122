#include <algorithm>
#include <array>
#include <atomic>

#include "kernel.h"
#include "launch.h"

namespace fused_penalty::cuda {
namespace {

// A launch holds 4 KB of arguments on every driver, 32,764 bytes since CUDA 12.1.
constexpr int kFew = 480, kMany = 4080;
static_assert(sizeof(Arguments<kFew>) <= 4096 && sizeof(Arguments<kMany>) <= 32764);

int address_count(const Launch& call) {
  return call.leaves * (1 + (call.anchored ? 1 : 0) + (writes(call.op) ? 1 : 0));
}

constexpr size_t kTicketBytes = 16;
size_t partial_bytes(Op op, int chunk_count) { return sizeof(double) * columns(op) * std::max(chunk_count, 1); }

// Blocks that are resident at once, so that each takes its share of chunks in one wave; asked once for each kernel on
// each device.
template <Op kOp, bool kAnchored, int kCapacity>
Status resident_blocks(int& blocks) {
  static std::array<std::atomic<int>, 64> known{};
  int device = 0;
  if (auto e = cudaGetDevice(&device); e != cudaSuccess) return {e, "cudaGetDevice"};
  auto& cached = known[device % known.size()];
  if (cached == 0) {
    int processors = 0, each = 0;
    if (auto e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device); e != cudaSuccess)
      return {e, "cudaDeviceGetAttribute"};
    if (auto e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, penalty_kernel<kOp, kAnchored, kCapacity>,
                                                               kThreads, 0);
        e != cudaSuccess)
      return {e, "cudaOccupancyMaxActiveBlocksPerMultiprocessor"};
    cached = processors * std::max(each, 1);
  }
  blocks = cached;
  return {};
}

template <Op kOp, bool kAnchored, int kCapacity>
Status run(const Launch& call, cudaStream_t stream) {
  const int addresses = address_count(call);
  auto* scratch = static_cast<char*>(call.scratch);
  auto* partials = scratch + kTicketBytes;
  auto* table = reinterpret_cast<const void**>(partials + partial_bytes(call.op, call.chunk_count));

  Arguments<kCapacity> arg{call.chunks,
                           call.coefficients,
                           reinterpret_cast<double*>(partials),
                           reinterpret_cast<unsigned*>(scratch),
                           call.totals,
                           call.one,
                           nullptr,
                           call.chunk_count,
                           call.slots,
                           call.leaves,
                           call.wide_coefficients,
                           call.wide_totals,
                           {}};
  if (addresses <= kCapacity) {
    std::copy_n(call.addresses, addresses, arg.addresses);
  } else {
    for (int from = 0; from < addresses; from += kCapacity) {
      SomeAddresses<kCapacity> some{table + from, std::min(kCapacity, addresses - from), {}};
      std::copy_n(call.addresses + from, some.count, some.addresses);
      if (auto e = LAUNCH(write_addresses_kernel<kCapacity>, 1, kThreads, 0, stream, some); e != cudaSuccess)
        return {e, "the launch that writes addresses"};
    }
    arg.more = table;
  }
  if (auto e = cudaMemsetAsync(arg.ticket, 0, sizeof(unsigned), stream); e != cudaSuccess)
    return {e, "cudaMemsetAsync of the ticket"};
  const auto kernel = penalty_kernel<kOp, kAnchored, kCapacity>;
  int resident = 0;
  if (auto status = resident_blocks<kOp, kAnchored, kCapacity>(resident); status.where) return status;
  const int blocks = std::clamp(call.chunk_count, 1, resident);
  if (auto e = LAUNCH(kernel, blocks, kThreads, 0, stream, arg); e != cudaSuccess)
    return {e, "the launch of the kernel"};
  return {};
}

template <Op kOp, bool kAnchored>
Status run_sized(const Launch& call, cudaStream_t stream) {
  return address_count(call) <= kFew ? run<kOp, kAnchored, kFew>(call, stream)
                                     : run<kOp, kAnchored, kMany>(call, stream);
}

Status run_op(const Launch& call, cudaStream_t stream) {
  return visit(call.op, [&]<Op kOp>() {
    return call.anchored ? run_sized<kOp, true>(call, stream) : run_sized<kOp, false>(call, stream);
  });
}

}  // namespace

size_t scratch_bytes(Op op, int chunk_count, int addresses) {
  return kTicketBytes + partial_bytes(op, chunk_count) + (addresses > kMany ? addresses * sizeof(void*) : 0);
}

Status launch(const Launch& call, cudaStream_t stream) {
  const auto status = run_op(call, stream);
  if (status.where) (void)cudaGetLastError();  // it has been reported: whoever asks next did not cause it
  return status;
}

}  // namespace fused_penalty::cuda
